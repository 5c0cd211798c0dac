//! After Redis has lost its data: loads the owners that are asked for, most often first, so that Redis holds them again.

use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;

use super::copy::OwnerKey;
use super::{NotLoaded, Reads};

const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// An owner without a question within this time is loaded by its next question.
const RECENT_USE: Duration = Duration::from_secs(3_600);
/// The time between two loads: fifty a second for each process.
const LOAD_INTERVAL: Duration = Duration::from_millis(20);
/// The pause before the owners that could not be loaded are tried again. It doubles while none can be.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The refill ends when no owner could be loaded for this time.
const GIVE_UP_AFTER: Duration = Duration::from_secs(3_600);

/// Watches the counter of losses, which the monitor of Redis counts up. What is in memory is not written back: a
/// customer that was purged meanwhile would return with it. Each owner is read from Redis, where another process may
/// have brought it, else from the Edge API.
pub async fn run(reads: Reads, losses: Counter) {
    let mut known = losses.get();
    loop {
        tokio::time::sleep(CHECK_INTERVAL).await;
        let now = losses.get();
        if now == known || !reads.loader.tracked.is_up() {
            continue;
        }
        known = now;
        let refill = Refill {
            reads: &reads,
            left: reads.copy.recent(RECENT_USE),
            rejected: 0,
        };
        refill.run(|| losses.get() == known).await;
    }
}

struct Refill<'a> {
    reads: &'a Reads,
    /// The owners that are not loaded yet, most often asked for first.
    left: Vec<OwnerKey>,
    /// The owners that the Edge API rejects.
    rejected: usize,
}

impl Refill<'_> {
    /// Loads all, while no later loss `is_latest` makes it begin again.
    async fn run(mut self, is_latest: impl Fn() -> bool) {
        let customers = self.left.len();
        tracing::info!(
            customers,
            "loading the customers of the last hour into Redis"
        );
        let (mut pause, mut progress) = (FIRST_PAUSE, Instant::now());
        loop {
            let before = self.left.len();
            self.pass(&is_latest).await;
            if self.left.len() < before {
                (pause, progress) = (FIRST_PAUSE, Instant::now());
            }
            if self.left.is_empty() || !is_latest() || progress.elapsed() > GIVE_UP_AFTER {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        tracing::info!(
            customers,
            failed = self.left.len() + self.rejected,
            "the customers of the last hour were loaded"
        );
    }

    /// Tries each owner that is left, and stops while Redis or the Edge API is away.
    async fn pass(&mut self, is_latest: &impl Fn() -> bool) {
        let (mut is_away, mut kept) = (false, Vec::new());
        for key in std::mem::take(&mut self.left) {
            if is_away || !is_latest() {
                kept.push(key);
                continue;
            }
            match self.reads.load(key.owner(), None).await {
                Some(Ok(_)) => {
                    self.reads.metrics.refilled.inc();
                }
                Some(Err(NotLoaded::Declined)) | None => self.rejected += 1,
                Some(Err(_)) => kept.push(key),
            }
            is_away = !self.reads.loader.tracked.is_up() || self.reads.loader.breaker.is_open();
            tokio::time::sleep(LOAD_INTERVAL).await;
        }
        self.left = kept;
    }
}
