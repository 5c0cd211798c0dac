//! Lets only a few consumers poll an empty queue; the others sleep until there are messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The number of polling consumers, and the sleeping ones. An empty poll costs as much as one that
/// finds messages, so after an empty one a consumer sleeps, down to the minimum number of pollers.
#[derive(Debug)]
pub struct Parking {
    awake: Arc<AtomicUsize>,
    least: usize,
    wake: Notify,
}

impl Parking {
    /// Starts with all consumers awake; `awake` shows their number from then on.
    pub fn new(awake: Arc<AtomicUsize>, consumers: usize, least: usize) -> Self {
        awake.store(consumers, Ordering::Relaxed);
        Self {
            awake,
            least,
            wake: Notify::new(),
        }
    }

    /// Takes a place among the sleepers, unless too few pollers would be left. Dropping the place
    /// releases it.
    pub fn park(&self) -> Option<Parked<'_>> {
        self.awake
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |awake| {
                (awake > self.least).then(|| awake - 1)
            })
            .ok()
            .map(|_| Parked(self))
    }

    /// Stops counting as a poller until the place is dropped, and wakes a sleeper instead.
    pub fn busy(&self) -> Parked<'_> {
        self.awake.fetch_sub(1, Ordering::Relaxed);
        self.wake(1);
        Parked(self)
    }

    /// Wakes up to this many. It may miss a sleeper that starts to sleep right now; the next full
    /// batch wakes it.
    pub fn wake(&self, consumers: usize) {
        for _ in 0..consumers {
            self.wake.notify_one();
        }
    }

    /// Wakes all sleepers: when the queue fails, every consumer must notice.
    pub fn wake_all(&self) {
        self.wake.notify_waiters();
    }
}

/// A place among the consumers that do not poll.
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
