//! The parts that all consumers of a process share: work, flow and watch.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::budget::Budget;
use super::{Acknowledger, LAST_POLL_TIMEOUT, LONG_POLL, Limit, Parking, Suspects, Unknown};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::plan::Planner;
use crate::queue::Settings;
use crate::store::Store;
use crate::telemetry::Traces;

/// The parts that a message passes from the queue to Redis.
pub struct Work<Q> {
    pub queue: Arc<Q>,
    pub store: Store,
    pub planner: Planner,
    pub acknowledger: Acknowledger,
    pub policy: Policy,
}

/// The settings of the work.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub batch_size: usize,
    pub fifo: bool,
    pub update_if_exists: bool,
    pub lock_retries: u32,
    pub max_receive_count: u32,
    pub dead_letter_max_len: u64,
}

/// The limits of messages in flight, and the shutdown.
pub struct Flow {
    pub budget: Budget,
    pub parking: Arc<Parking>,
    pub settings: watch::Receiver<Settings>,
    pub shutdown: CancellationToken,
    pub polls: PollTimes,
    /// The receives in flight.
    pub receives: TaskTracker,
    /// Is cancelled when the receives in flight at the shutdown have ended, or have taken [`PollTimes::last`].
    pub polls_over: CancellationToken,
    /// The maximum duration of the drain after `shutdown`.
    pub drain: Duration,
    /// Permits to plan a large body.
    pub large: Arc<Semaphore>,
    /// The permit to work on a message that was received too often.
    pub doubtful: Arc<Semaphore>,
    pub suspects: Suspects,
}

/// How long receives wait for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollTimes {
    /// A receive, unless an empty answer is to prove the state in memory.
    pub long: Duration,
    /// A receive in flight, after the shutdown began.
    pub last: Duration,
}

impl PollTimes {
    /// Returns the times of a process beside others. What an interrupted receive strands is a delay.
    pub fn beside_others() -> Self {
        Self {
            long: LONG_POLL,
            last: LAST_POLL_TIMEOUT,
        }
    }

    /// Returns the times of a process that holds the state itself, and whose shutdown may take `drain`. Its receives end
    /// within the shutdown: the next process would have to wait for what an interrupted one strands.
    pub fn alone(drain: Duration) -> Self {
        let last = (drain / 2).max(LAST_POLL_TIMEOUT);
        let spare = last.saturating_sub(Duration::from_secs(1));
        Self {
            long: spare.clamp(SHORTEST_POLL, LONG_POLL_ALONE),
            last,
        }
    }
}

/// SQS counts whole seconds, and one is the least that asks all its servers.
const SHORTEST_POLL: Duration = Duration::from_secs(1);
/// Short, so that the shutdown of an idle process is; long, so that an empty queue is not asked often.
const LONG_POLL_ALONE: Duration = Duration::from_secs(5);
/// Large bodies that a process plans at once: a body of 1 MiB may need 20 MiB.
const MAX_LARGE_AT_ONCE: usize = 2;

impl Flow {
    pub fn new(
        budget: Budget,
        parking: Arc<Parking>,
        settings: watch::Receiver<Settings>,
        (shutdown, drain): (CancellationToken, Duration),
        polls: PollTimes,
    ) -> Self {
        let receives = TaskTracker::new();
        Self {
            budget,
            parking,
            settings,
            polls_over: last_polls(&shutdown, &receives, polls.last),
            polls,
            receives,
            shutdown,
            drain,
            large: Arc::new(Semaphore::new(MAX_LARGE_AT_ONCE)),
            doubtful: Arc::new(Semaphore::new(1)),
            suspects: Suspects::default(),
        }
    }
}

/// Returns a token that is cancelled when the receives in flight at the shutdown have ended, or must end.
fn last_polls(
    shutdown: &CancellationToken,
    receives: &TaskTracker,
    last: Duration,
) -> CancellationToken {
    let (shutdown, receives) = (shutdown.clone(), receives.clone());
    let over = CancellationToken::new();
    let ends = over.clone();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        receives.close();
        let _ = tokio::time::timeout(last, receives.wait()).await;
        ends.cancel();
    });
    over
}

/// Health, metrics and log limits of the work.
pub struct Watch {
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub traces: Traces,
    /// Log lines about refused messages.
    pub refusals: Limit,
    /// Log lines about outages of the queue.
    pub outages: Limit,
    pub unknown: Unknown,
    /// Whether this process has logged that messages list credit entitlements.
    pub credits_logged: AtomicBool,
}

/// Log lines of one kind per minute.
const MAX_LINES_PER_MINUTE: u32 = 30;

impl Watch {
    pub fn new(health: Arc<Health>, metrics: Metrics, traces: Traces) -> Self {
        Self {
            health,
            metrics,
            traces,
            refusals: Limit::per_minute(MAX_LINES_PER_MINUTE),
            outages: Limit::per_minute(MAX_LINES_PER_MINUTE),
            unknown: Unknown::default(),
            credits_logged: AtomicBool::new(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_alone_ends_its_receives_within_the_shutdown() {
        let secs = Duration::from_secs;
        for (drain, long, last) in [
            (2, 1, secs(1)),
            (8, 3, secs(4)),
            (25, 5, secs(12) + secs(1) / 2),
            (300, 5, secs(150)),
        ] {
            let times = PollTimes::alone(secs(drain));
            assert_eq!((times.long.as_secs(), times.last), (long, last), "{drain}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_polls_are_over_when_none_is_in_flight_or_time_is_up() {
        let (shutdown, receives) = (CancellationToken::new(), TaskTracker::new());
        let over = last_polls(&shutdown, &receives, Duration::from_secs(4));
        let receive = receives.token();
        shutdown.cancel();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!over.is_cancelled());
        drop(receive);
        let dropped = tokio::time::Instant::now();
        over.cancelled().await;
        assert_eq!(dropped.elapsed().as_secs(), 0);

        let (shutdown, receives) = (CancellationToken::new(), TaskTracker::new());
        let over = last_polls(&shutdown, &receives, Duration::from_secs(4));
        let _receive = receives.token();
        shutdown.cancel();
        let began = tokio::time::Instant::now();
        over.cancelled().await;
        assert_eq!(began.elapsed().as_secs(), 4);
    }
}
