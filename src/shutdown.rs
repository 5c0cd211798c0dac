//! Turns signals into a token that the other modules watch.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The signals that concern the worker, from its creation on. Each is kept until
/// [`watch`](Self::watch) handles it.
pub struct Signals {
    runtime: tokio::runtime::Runtime,
    ending: Vec<(&'static str, i32, Signal)>,
    ignored: Vec<(&'static str, Signal)>,
}

/// Names and numbers of the signals that start a drain.
const DRAIN_SIGNALS: [(&str, i32); 4] = [
    ("SIGTERM", 15),
    ("SIGINT", 2),
    ("SIGHUP", 1),
    ("SIGQUIT", 3),
];
/// Names and numbers of ignored signals, which would end the process by default.
const IGNORED_SIGNALS: [(&str, i32); 2] = [("SIGUSR1", 10), ("SIGUSR2", 12)];

impl Signals {
    /// Puts the handlers in place. Until then a signal ends the process without a drain, and process
    /// 1 of a container does not even get it.
    pub fn register() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let handler = |number| signal(SignalKind::from_raw(number));
        let ending = DRAIN_SIGNALS
            .into_iter()
            .map(|(name, number)| Ok((name, number, handler(number)?)))
            .collect::<io::Result<_>>()?;
        let ignored = IGNORED_SIGNALS
            .into_iter()
            .map(|(name, number)| Ok((name, handler(number)?)))
            .collect::<io::Result<_>>()?;
        drop(entered);
        Ok(Self {
            runtime,
            ending,
            ignored,
        })
    }

    /// Returns the token that the first signal cancels. The second ends the process by calling
    /// `exit` with 128 plus its number, since a second signal means not to wait. A second SIGHUP does
    /// not count, since a terminal that closes may send several.
    pub fn watch(self, exit: impl Fn(i32) + Send + 'static) -> io::Result<CancellationToken> {
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        let Self {
            runtime,
            mut ending,
            mut ignored,
        } = self;
        let watching = async move {
            loop {
                let (name, number) = next(&mut ending, &mut ignored).await;
                if !token.is_cancelled() {
                    tracing::info!(
                        signal = name,
                        "shutting down; a second signal exits at once"
                    );
                    token.cancel();
                } else if name != "SIGHUP" {
                    tracing::warn!(
                        signal = name,
                        "second signal, exiting at once; SQS redelivers the messages in flight"
                    );
                    exit(128 + number);
                }
            }
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || runtime.block_on(watching))?;
        Ok(shutdown)
    }
}

/// Waits for the next signal that is not ignored.
async fn next(
    ending: &mut [(&'static str, i32, Signal)],
    ignored: &mut [(&'static str, Signal)],
) -> (&'static str, i32) {
    std::future::poll_fn(|context| {
        for (name, signal) in &mut *ignored {
            while signal.poll_recv(context).is_ready() {
                tracing::info!(signal = *name, "the signal does not end the process");
            }
        }
        for (name, number, signal) in &mut *ending {
            if signal.poll_recv(context).is_ready() {
                return std::task::Poll::Ready((*name, *number));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All messages were finished or returned.
    Drained,
    /// `SHUTDOWN_TIMEOUT_SECS` ended first; SQS redelivers the messages in flight.
    Overran,
}

/// The part of `SHUTDOWN_TIMEOUT_SECS` that stopping HTTP and exiting takes.
pub const EXIT_MARGIN: Duration = Duration::from_millis(500);

/// The time for the last log lines, within the timeout of a shutdown.
pub const FLUSH_TIMEOUT: Duration = Duration::from_millis(300);
