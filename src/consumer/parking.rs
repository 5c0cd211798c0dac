//! An empty queue is watched by few; the others sleep until there is something to do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many consumers poll, and those who wait to be woken. An idle poll costs as much as one that
/// finds messages, so after an empty one a consumer sleeps, down to the least number of pollers.
#[derive(Debug)]
pub struct Parking {
    awake: Arc<AtomicUsize>,
    least: usize,
    wake: Notify,
}

impl Parking {
    /// All are awake at first; how many are is told in `awake` from then on.
    pub fn new(awake: Arc<AtomicUsize>, consumers: usize, least: usize) -> Self {
        awake.store(consumers, Ordering::Relaxed);
        Self {
            awake,
            least,
            wake: Notify::new(),
        }
    }

    /// Takes a place among the sleepers, unless there would be too few pollers left. It is given
    /// up when the place is dropped, however that comes about.
    pub fn park(&self) -> Option<Parked<'_>> {
        self.awake
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |awake| {
                (awake > self.least).then(|| awake - 1)
            })
            .ok()
            .map(|_| Parked(self))
    }

    /// Counts as no poller until the place is dropped, and lets a sleeper take over.
    pub fn busy(&self) -> Parked<'_> {
        self.awake.fetch_sub(1, Ordering::Relaxed);
        self.wake(1);
        Parked(self)
    }

    /// Wakes up to this many. A sleeper that begins to sleep just now may be missed; the next full
    /// batch wakes it.
    pub fn wake(&self, consumers: usize) {
        for _ in 0..consumers {
            self.wake.notify_one();
        }
    }

    /// Wakes everyone: when the queue fails, all shall know.
    pub fn wake_all(&self) {
        self.wake.notify_waiters();
    }
}

/// A place among those who do not poll.
#[derive(Debug)]
pub struct Parked<'a>(&'a Parking);

impl Parked<'_> {
    pub async fn woken(&self) {
        self.0.wake.notified().await;
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.awake.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_leave_the_least_number_awake_and_can_be_woken() {
        let parking = Parking::new(Arc::default(), 3, 1);
        let (first, second) = (parking.park().unwrap(), parking.park().unwrap());
        assert!(parking.park().is_none());
        assert_eq!(parking.awake.load(Ordering::Relaxed), 1);
        parking.wake(1);
        first.woken().await;
        drop(first);
        assert_eq!(parking.awake.load(Ordering::Relaxed), 2);
        let woken = second.woken();
        tokio::pin!(woken);
        assert!(futures_util::poll!(woken.as_mut()).is_pending());
        parking.wake_all();
        woken.await;
    }
}
