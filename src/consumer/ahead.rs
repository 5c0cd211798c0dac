//! Requests the next batch while the consumer works on a full one, so that the round trip to the queue overlaps
//! with the work. A consumer works on one batch at a time.

use std::future::Future;

use futures_util::FutureExt;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;

use super::Received;
use super::budget::Reserved;
use super::lease::Held;

/// The receive during the work. Dropping it cancels the receive.
#[derive(Default)]
pub enum Ahead {
    #[default]
    Idle,
    Asking(AbortOnDropHandle<Received>),
    Answered(Received),
}

impl Ahead {
    /// Sends the request, and returns.
    pub async fn ask(&mut self, receive: impl Future<Output = Received> + Send + 'static) {
        *self = Self::Asking(AbortOnDropHandle::new(tokio::spawn(receive)));
        // Lets the receive and the connection's task run now; the work would occupy the thread.
        tokio::task::yield_now().await;
    }

    /// Waits for the answer; `None` if nothing was requested, or its messages were taken.
    pub async fn answer(&mut self) -> Option<Received> {
        match std::mem::take(self) {
            Self::Idle => None,
            Self::Asking(receive) => Some(finished(receive.await)),
            Self::Answered(received) => Some(received),
        }
    }

    /// Takes the messages that have arrived, for a caller whose work takes too long for them to wait.
    pub fn messages(&mut self) -> Option<(Vec<Held>, Reserved)> {
        if let Self::Asking(receive) = self
            && let Some(received) = receive.now_or_never()
        {
            *self = Self::Answered(finished(received));
        }
        match std::mem::take(self) {
            Self::Answered(Received::Messages(messages, reserved)) => Some((messages, reserved)),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Passes a panic of the receive on to its consumer, which is then replaced.
fn finished(received: Result<Received, JoinError>) -> Received {
    match received {
        Ok(received) => received,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down.
            Err(_) => Received::Interrupted,
        },
    }
}
