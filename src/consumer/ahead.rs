//! While a full batch is worked on, the next one is asked for: the way to the queue and back is no
//! idle time then. One batch is worked on at a time all the same.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use super::Received;
use super::budget::Reserved;
use crate::queue::Delivery;

/// The receive that goes on beside the work, and its answer once it is there.
#[derive(Default)]
pub struct Ahead<'a> {
    asking: Option<Pin<Box<dyn Future<Output = Received> + Send + 'a>>>,
    answer: Option<Received>,
}

impl<'a> Ahead<'a> {
    /// Sends the request, and returns.
    pub async fn ask(&mut self, receive: impl Future<Output = Received> + Send + 'a) {
        let mut asking = Box::pin(receive);
        match poll_fn(|context| Poll::Ready(asking.as_mut().poll(context))).await {
            Poll::Ready(answer) => self.answer = Some(answer),
            Poll::Pending => self.asking = Some(asking),
        }
        // The connection's own task writes it, and would wait for us otherwise.
        tokio::task::yield_now().await;
    }

    /// Lets the answer come while a step of the work goes on.
    pub async fn during<T>(&mut self, step: impl Future<Output = T>) -> T {
        let mut step = std::pin::pin!(step);
        if let Some(asking) = &mut self.asking {
            tokio::select! {
                biased;
                done = &mut step => return done,
                answer = asking => self.answer = Some(answer),
            }
            self.asking = None;
        }
        step.await
    }

    /// Waits for the answer; `None` if nothing was asked.
    pub async fn answer(&mut self) -> Option<Received> {
        if let Some(asking) = &mut self.asking {
            self.answer = Some(asking.await);
            self.asking = None;
        }
        self.answer.take()
    }

    /// The messages that are here, where the work takes so long that they are not to wait for it.
    pub fn messages(&mut self) -> Option<(Vec<Delivery>, Reserved)> {
        match self.answer.take() {
            Some(Received::Messages(messages, reserved)) => Some((messages, reserved)),
            other => {
                self.answer = other;
                None
            }
        }
    }
}
