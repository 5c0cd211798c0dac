//! An HTTP proxy as companies have them: tunnels by CONNECT, plain requests by their whole URL. It remembers what it
//! was asked for.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use super::{free_port, listen};

pub struct HttpProxy {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    accepting: JoinHandle<()>,
}

impl HttpProxy {
    pub async fn start() -> HttpProxy {
        let port = free_port();
        let listener = listen(port).await;
        let heads = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn({
            let heads = heads.clone();
            async move {
                let mut connections = JoinSet::new();
                loop {
                    tokio::select! {
                        Ok((stream, _)) = listener.accept() => {
                            connections.spawn(carry(stream, heads.clone()));
                        }
                        Some(_) = connections.join_next() => {}
                    }
                }
            }
        });
        HttpProxy {
            port,
            heads,
            accepting,
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn url_with(&self, user: &str, password: &str) -> String {
        format!("http://{user}:{password}@127.0.0.1:{}", self.port)
    }

    /// The first line and the headers of the first request of each connection.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// How many connections began with this, such as `CONNECT 127.0.0.1:4000`.
    pub fn count(&self, start: &str) -> usize {
        self.heads()
            .iter()
            .filter(|head| head.starts_with(start))
            .count()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, heads: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.ok()?);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    heads.lock().unwrap().push(text.clone());
    let mut words = text.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let address = match method {
        "CONNECT" => target.to_owned(),
        _ => target
            .strip_prefix("http://")?
            .split('/')
            .next()?
            .to_owned(),
    };
    let mut server = TcpStream::connect(address).await.ok()?;
    match method {
        "CONNECT" => {
            client
                .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                .await
        }
        // Servers take the whole URL too.
        _ => server.write_all(&head).await,
    }
    .ok()?;
    let _ = copy_bidirectional(&mut client, &mut server).await;
    Some(())
}
