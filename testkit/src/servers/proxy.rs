//! A TCP forwarder with a hand on the link: cut, silent, slow, reset.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{free_port, listen, until};

pub struct TcpProxy {
    port: u16,
    shared: Arc<Shared>,
    /// The task that accepts connections; none while the link is cut.
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    target: u16,
    link: watch::Sender<Link>,
    end: broadcast::Sender<End>,
    /// What a connection may not carry: it forwards nothing to the server from there on.
    swallowed: std::sync::Mutex<Option<Vec<u8>>>,
    open: AtomicUsize,
    accepted: AtomicUsize,
}

#[derive(Clone, Copy, Default)]
struct Link {
    silent: bool,
    delay: Duration,
    bytes_per_sec: Option<u64>,
}

#[derive(Clone, Copy)]
enum End {
    Close,
    Reset,
}

impl TcpProxy {
    /// Forwards a free loopback port to the loopback port `target`.
    pub async fn start(target: u16) -> TcpProxy {
        let shared = Arc::new(Shared {
            target,
            link: watch::Sender::new(Link::default()),
            end: broadcast::Sender::new(16),
            swallowed: std::sync::Mutex::default(),
            open: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
        });
        let proxy = TcpProxy {
            port: free_port(),
            shared,
            accepting: Mutex::new(None),
        };
        proxy.restore().await;
        proxy
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections and refuses new ones, until `restore`.
    pub async fn cut(&self) {
        if let Some(accepting) = self.accepting.lock().await.take() {
            accepting.abort();
            // Only then is the port closed.
            let _ = accepting.await;
        }
        self.end_all(End::Close).await;
    }

    /// Resets all connections (RST), and accepts new ones.
    pub async fn reset(&self) {
        self.end_all(End::Reset).await;
    }

    /// Keeps all connections and accepts new ones, but forwards nothing, not even their end, until `restore`.
    pub fn blackhole(&self) {
        self.shared.link.send_modify(|link| link.silent = true);
    }

    /// Holds everything back by that long, each way.
    pub fn delay(&self, delay: Duration) {
        self.shared.link.send_modify(|link| link.delay = delay);
    }

    /// Every connection on which a client sends these bytes is silent from there on; others go on.
    pub fn swallow(&self, bytes: &str) {
        *self.shared.swallowed.lock().unwrap() = Some(bytes.into());
    }

    /// Lets no more than that through, each way.
    pub fn trickle(&self, bytes_per_sec: u64) {
        self.shared
            .link
            .send_modify(|link| link.bytes_per_sec = Some(bytes_per_sec.max(1)));
    }

    /// Takes back `cut`, `blackhole`, `delay` and `trickle`. What was held back arrives now.
    pub async fn restore(&self) {
        self.shared.link.send_replace(Link::default());
        let mut accepting = self.accepting.lock().await;
        if accepting.is_none() {
            *accepting = Some(tokio::spawn(accept(
                listen(self.port).await,
                self.shared.clone(),
            )));
        }
    }

    /// Connections that are open now.
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    async fn end_all(&self, how: End) {
        let before = self.accepted();
        let _ = self.shared.end.send(how);
        // Those that came in the meantime stay.
        until(
            "the connections have ended",
            Duration::from_secs(5),
            async || self.connections() <= self.accepted() - before,
        )
        .await;
    }
}

impl Shared {
    /// Whether a connection may not carry these bytes, given the end of what it carried before.
    fn swallows(&self, seen: &mut Vec<u8>, bytes: &[u8]) -> bool {
        let wanted = self.swallowed.lock().unwrap();
        let Some(wanted) = wanted.as_ref() else {
            return false;
        };
        seen.extend(bytes);
        let found = seen.windows(wanted.len()).any(|window| window == wanted);
        seen.drain(..seen.len().saturating_sub(wanted.len()));
        found
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.get_mut() {
            accepting.abort();
        }
        let _ = self.shared.end.send(End::Close);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        shared.open.fetch_add(1, Ordering::SeqCst);
        // Subscribed here, so that no `cut` falls between the accept and the task.
        let end = shared.end.subscribe();
        let shared = shared.clone();
        tokio::spawn(async move {
            carry(client, &shared, end).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Forwards one connection until both sides have ended it, or it is ended here.
async fn carry(mut client: TcpStream, shared: &Shared, mut end: broadcast::Receiver<End>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", shared.target)).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let ended = {
        // Borrowed halves: owned ones would send a FIN when dropped, and spoil the RST.
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                pump(
                    from_client,
                    to_server,
                    shared.link.subscribe(),
                    Some(shared)
                ),
                pump(from_server, to_client, shared.link.subscribe(), None),
            )
        };
        tokio::select! {
            _ = both => End::Close,
            Ok(how) = end.recv() => how,
        }
    };
    if matches!(ended, End::Reset) {
        let _ = client.set_zero_linger();
        let _ = server.set_zero_linger();
    }
}

/// Forwards one direction. Reading goes on while earlier bytes are held back, so that a delay does not add up.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut link: watch::Receiver<Link>,
    guard: Option<&Shared>,
) -> io::Result<()> {
    let (arrived, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(64);
    let read = async move {
        let mut seen = Vec::new();
        loop {
            let mut bytes = vec![0; 16 * 1024];
            // An error of the reader is the end of what it sent; the other direction finds out by itself.
            let count = from.read(&mut bytes).await.unwrap_or(0);
            bytes.truncate(count);
            if guard.is_some_and(|guard| guard.swallows(&mut seen, &bytes)) {
                return std::future::pending().await;
            }
            if count == 0 || arrived.send((Instant::now(), bytes)).await.is_err() {
                return io::Result::Ok(());
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = waiting.recv().await {
            let delay = link.borrow().delay;
            tokio::time::sleep_until(at + delay).await;
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let now = audible(&mut link).await?;
                // Fifty pieces a second, or one byte at a time.
                let size = now
                    .bytes_per_sec
                    .map_or(rest.len(), |rate| (rate as usize / 50).clamp(1, rest.len()));
                let (piece, left) = rest.split_at(size);
                to.write_all(piece).await?;
                rest = left;
                if let Some(rate) = now.bytes_per_sec {
                    tokio::time::sleep(Duration::from_secs_f64(size as f64 / rate as f64)).await;
                }
            }
        }
        audible(&mut link).await?;
        to.shutdown().await
    };
    tokio::try_join!(read, write).map(drop)
}

/// Waits until the link is not silent. Fails when the proxy is gone.
async fn audible(link: &mut watch::Receiver<Link>) -> io::Result<Link> {
    let now = link.wait_for(|link| !link.silent).await;
    now.map(|link| *link).map_err(io::Error::other)
}
