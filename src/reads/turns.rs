//! How many requests to the Edge API may be under way, and how many may wait for their turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

pub struct Turns {
    under_way: Semaphore,
    waiting: AtomicUsize,
    max_waiting: usize,
}

impl Turns {
    pub fn new(max_under_way: usize, max_waiting: usize) -> Self {
        Self {
            under_way: Semaphore::new(max_under_way),
            waiting: AtomicUsize::new(0),
            max_waiting,
        }
    }

    /// Waits for a turn, which lasts as long as the permit. `None` at once if too many wait already.
    pub async fn take(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.under_way.try_acquire() {
            return Some(permit);
        }
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.max_waiting {
            return None;
        }
        let permit = self.under_way.acquire().await;
        drop(waiting);
        // It is never closed.
        permit.ok()
    }
}

/// Counts one that waits no longer, also when whoever waited has gone.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::Turns;

    #[test]
    fn only_so_many_wait_and_who_goes_makes_room() {
        let turns = Turns::new(1, 1);
        let first = turns.take().now_or_never().flatten();
        assert!(first.is_some());
        let mut second = Box::pin(turns.take());
        assert!((&mut second).now_or_never().is_none(), "it waits");
        assert!(turns.take().now_or_never().is_some_and(|it| it.is_none()));
        drop(second);
        let mut third = Box::pin(turns.take());
        assert!((&mut third).now_or_never().is_none(), "it waits");
        drop(first);
        assert!(third.now_or_never().flatten().is_some());
    }
}
