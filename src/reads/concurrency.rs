//! Bounds the requests to the Edge API that are in flight, and those that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub struct ConcurrencyLimit {
    in_flight: Arc<Semaphore>,
    waiting: AtomicUsize,
    max_waiting: usize,
}

impl ConcurrencyLimit {
    pub fn new(max_in_flight: usize, max_waiting: usize) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(max_in_flight)),
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// Waits for a permit. `None` at once if too many wait already.
    pub async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.in_flight.clone().try_acquire_owned() {
            return Some(permit);
        }
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max_waiting {
            return None;
        }
        let permit = self.in_flight.clone().acquire_owned().await;
        drop(waiting);
        // It is never closed.
        permit.ok()
    }
}

/// Stops counting a waiting request, also when its caller has gone.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::ConcurrencyLimit;

    #[test]
    fn waiting_is_bounded_and_a_waiter_that_leaves_makes_room() {
        let limit = ConcurrencyLimit::new(1, 1);
        let first = limit.take().now_or_never().flatten();
        assert!(first.is_some());
        let mut second = Box::pin(limit.take());
        assert!((&mut second).now_or_never().is_none(), "it waits");
        assert!(limit.take().now_or_never().is_some_and(|it| it.is_none()));
        drop(second);
        let mut third = Box::pin(limit.take());
        assert!((&mut third).now_or_never().is_none(), "it waits");
        drop(first);
        assert!(third.now_or_never().flatten().is_some());
    }
}
