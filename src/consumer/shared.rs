//! The parts that all consumers of a process share: work, flow and watch.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::budget::Budget;
use super::{Acknowledger, LAST_POLL_TIMEOUT, Limit, Parking, Suspects, Unknown};
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
    /// Is cancelled [`LAST_POLL_TIMEOUT`] after `shutdown`.
    pub polls_over: CancellationToken,
    /// The maximum duration of the drain after `shutdown`.
    pub drain: Duration,
    /// Permits to plan a large body.
    pub large: Arc<Semaphore>,
    /// The permit to work on a message that was received too often.
    pub doubtful: Arc<Semaphore>,
    pub suspects: Suspects,
}

/// Large bodies that a process plans at once: a body of 1 MiB may need 20 MiB.
const MAX_LARGE_AT_ONCE: usize = 2;

impl Flow {
    pub fn new(
        budget: Budget,
        parking: Arc<Parking>,
        settings: watch::Receiver<Settings>,
        shutdown: CancellationToken,
        drain: Duration,
    ) -> Self {
        Self {
            budget,
            parking,
            settings,
            polls_over: last_polls(&shutdown),
            shutdown,
            drain,
            large: Arc::new(Semaphore::new(MAX_LARGE_AT_ONCE)),
            doubtful: Arc::new(Semaphore::new(1)),
            suspects: Suspects::default(),
        }
    }
}

/// Returns a token that is cancelled when receives in flight at the shutdown must end.
fn last_polls(shutdown: &CancellationToken) -> CancellationToken {
    let (shutdown, over) = (shutdown.clone(), CancellationToken::new());
    let ends = over.clone();
    tokio::spawn(async move {
        shutdown.cancelled().await;
        tokio::time::sleep(LAST_POLL_TIMEOUT).await;
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
