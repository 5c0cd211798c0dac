//! While a full batch is worked on, the next one is asked for: the way to the queue and back is no
//! idle time then. One batch is worked on at a time all the same.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;

use super::Received;
use super::budget::Reserved;
use super::lease::Held;

/// The receive that goes on beside the work.
#[derive(Default)]
pub struct Ahead<'a> {
    asking: Option<Pin<Box<dyn Future<Output = Received> + Send + 'a>>>,
    inbox: Inbox,
}

/// Where the answer lies once it is there; clones share it.
#[derive(Clone, Default)]
pub struct Inbox(Arc<Mutex<Option<Received>>>);

impl<'a> Ahead<'a> {
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }

    /// Sends the request, and returns.
    pub async fn ask(&mut self, receive: impl Future<Output = Received> + Send + 'a) {
        let mut asking = Box::pin(receive);
        match poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await {
            Poll::Ready(answer) => self.inbox.put(answer),
            Poll::Pending => self.asking = Some(asking),
        }
        // The connection's own task writes it, and would wait for us otherwise.
        tokio::task::yield_now().await;
    }

    /// Lets the answer come while the work goes on.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        if let Some(asking) = &mut self.asking {
            tokio::select! {
                biased;
                done = &mut work => return done,
                answer = asking => self.inbox.put(answer),
            }
            self.asking = None;
        }
        work.await
    }

    /// Waits for the answer; `None` if nothing was asked, or its messages were taken.
    pub async fn answer(&mut self) -> Option<Received> {
        if let Some(asking) = &mut self.asking {
            let answer = asking.await;
            self.inbox.put(answer);
            self.asking = None;
        }
        self.inbox.lock().take()
    }
}

impl Inbox {
    /// Takes the messages that are here, where the work takes so long that they are not to wait.
    pub fn messages(&self) -> Option<(Vec<Held>, Reserved)> {
        let mut inbox = self.lock();
        match inbox.take() {
            Some(Received::Messages(messages, reserved)) => Some((messages, reserved)),
            other => {
                *inbox = other;
                None
            }
        }
    }

    fn put(&self, answer: Received) {
        *self.lock() = Some(answer);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Received>> {
        self.0.lock().unwrap_or_else(|lock| lock.into_inner())
    }
}
