//! Defines every metric with its name and type. Labels are enums, so that no id becomes a label.

mod history;
mod labels;
mod reads;
mod scrape;
mod snapshots;

pub use history::{History, Lag, Point};
pub use labels::{Call, CallFailed, Operation, Outcome, Processed};
pub use reads::{ReadMetrics, ReadResult, ReadRoute, UpstreamOutcome};
pub use scrape::Scrape;
pub use snapshots::{MemoryMetrics, SnapshotMetrics};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::message::Kind;
use crate::queue::{QueueError, QueueErrorKind};
use crate::{clock, version};

/// All metrics of the process; cheap to clone, and clones share the counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    pub received: Counter,
    pub redelivered: Counter,
    pub processed: Family<Processed, Counter>,
    pub times_ahead: Counter,
    pub found_by_structure: Counter,
    pub credit_entitlements: Counter,
    pub coalesced: Counter,
    pub locked: Counter,
    pub acknowledged: Counter,
    pub acknowledge_failed: Counter,
    pub acknowledged_late: Counter,
    pub released: Counter,
    pub extended: Counter,
    pub dead_lettered: Counter,
    pub queue_errors: Family<CallFailed, Counter>,
    pub redis_errors: Counter,
    pub redis_data_lost: Counter,
    pub redis_replicas_missing: Counter,
    pub consumers_restarted: Counter,
    pub queue_calls: Family<Call, Histogram, fn() -> Histogram>,
    pub redis_calls: Histogram,
    pub lag: Histogram,
    pub batch: Histogram,
    pub redis_up: Gauge,
    pub inflight_messages: Gauge,
    pub inflight_bytes: Gauge,
    pub inflight_bytes_limit: Gauge,
    pub last_poll: Gauge<f64, AtomicU64>,
    pub last_success: Gauge<f64, AtomicU64>,
    pub empty_receives: Counter,
    pub log_lines_dropped: Counter,
    /// The metrics of the read API.
    pub reads: ReadMetrics,
    pub snapshots: SnapshotMetrics,
    pub history: Arc<History>,
}

impl Metrics {
    /// Returns the metrics and their registry.
    pub fn new() -> (Self, Registry) {
        Self::beside(Counter::default())
    }

    /// Returns the metrics with an existing counter of dropped log lines.
    pub fn beside(log_lines_dropped: Counter) -> (Self, Registry) {
        const CALLS: [f64; 12] = [
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 25.0,
        ];
        const LAGS: [f64; 13] = [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
        ];
        let metrics = Self {
            received: Counter::default(),
            redelivered: Counter::default(),
            processed: Family::default(),
            times_ahead: Counter::default(),
            found_by_structure: Counter::default(),
            credit_entitlements: Counter::default(),
            coalesced: Counter::default(),
            locked: Counter::default(),
            acknowledged: Counter::default(),
            acknowledge_failed: Counter::default(),
            acknowledged_late: Counter::default(),
            released: Counter::default(),
            extended: Counter::default(),
            dead_lettered: Counter::default(),
            queue_errors: Family::default(),
            redis_errors: Counter::default(),
            redis_data_lost: Counter::default(),
            redis_replicas_missing: Counter::default(),
            consumers_restarted: Counter::default(),
            queue_calls: Family::new_with_constructor(|| Histogram::new(CALLS)),
            redis_calls: Histogram::new(CALLS),
            lag: Histogram::new(LAGS),
            batch: Histogram::new((1..=10).map(f64::from)),
            redis_up: Gauge::default(),
            inflight_messages: Gauge::default(),
            inflight_bytes: Gauge::default(),
            inflight_bytes_limit: Gauge::default(),
            last_poll: Gauge::default(),
            last_success: Gauge::default(),
            empty_receives: Counter::default(),
            log_lines_dropped,
            reads: ReadMetrics::default(),
            snapshots: SnapshotMetrics::default(),
            history: Arc::default(),
        };
        // Created at the start, so that rates and alerts see the first event too.
        for kind in Kind::ALL {
            for outcome in Outcome::ALL {
                drop(
                    metrics
                        .processed
                        .get_or_create(&Processed::of(kind, outcome)),
                );
            }
        }
        for operation in Operation::ALL {
            for error in QueueErrorKind::ALL {
                drop(
                    metrics
                        .queue_errors
                        .get_or_create(&CallFailed { operation, error }),
                );
            }
            drop(metrics.queue_calls.get_or_create(&Call { operation }));
        }
        // A collector uses full names, because some are standard names of every process.
        let mut registry = Registry::default();
        let all = registry.sub_registry_with_prefix("entitlement_sync");
        macro_rules! register {
            ($($field:ident $name:literal $help:literal $($unit:expr)?;)+) => {
                $(register!(@ all $name $help metrics.$field.clone() $(, $unit)?);)+
            };
            (@ $registry:ident $name:literal $help:literal $metric:expr, $unit:expr) => {
                $registry.register_with_unit($name, $help, $unit, $metric)
            };
            (@ $registry:ident $name:literal $help:literal $metric:expr) => {
                $registry.register($name, $help, $metric)
            };
        }
        register! {
            received "messages_received" "Messages received from the queue, redeliveries included";
            redelivered "messages_redelivered" "Messages received that had been received before";
            processed "messages_processed" "Messages processed, by kind and outcome";
            times_ahead "times_ahead" "Times of events that were more than 5 minutes ahead of their message and were replaced by its time of sending";
            found_by_structure "messages_found_by_structure" "Messages of unknown shape in which a change was found by its structure";
            credit_entitlements "messages_with_credit_entitlements" "Messages that list credit entitlements, which the layout in Redis cannot hold";
            coalesced "items_coalesced" "Values not written because a neighbour in the batch superseded them";
            locked "locked_retries" "Tries that found the customer locked by an SDK";
            acknowledged "messages_acknowledged" "Messages deleted from the queue";
            acknowledge_failed "acknowledge_failures" "Messages that could not be deleted; SQS redelivers them, which is harmless";
            acknowledged_late "acknowledged_late" "Messages deleted after their visibility timeout had passed";
            released "messages_released" "Messages returned to the queue";
            extended "visibility_extensions" "Messages whose visibility timeout was extended";
            dead_lettered "messages_dead_lettered" "Messages given up: left for the dead-letter queue or kept in Redis";
            queue_errors "queue_errors" "Failed calls to the queue, by error";
            redis_errors "redis_errors" "Failed or timed-out writes to Redis";
            redis_data_lost "redis_data_lost" "Times that Redis was found to have lost its data";
            redis_replicas_missing "redis_replicas_missing" "Times that too few replicas confirmed writes in time";
            consumers_restarted "consumers_restarted" "Consumers that panicked or stalled and were replaced";
            queue_calls "queue_call_duration" "Time of calls to the queue; receives wait up to 20 s" Unit::Seconds;
            redis_calls "redis_call_duration" "Time of one batch of writes to Redis" Unit::Seconds;
            lag "lag" "Time from SendMessage until the state was visible in Redis" Unit::Seconds;
            batch "batch_messages" "Messages in one answer of the queue, without empty answers";
            redis_up "redis_up" "1 while Redis takes writes";
            inflight_messages "inflight_messages" "Messages received and neither acknowledged nor released";
            last_poll "last_poll_timestamp" "When the queue last answered a receive" Unit::Seconds;
            last_success "last_success_timestamp" "When a message was last finished" Unit::Seconds;
            empty_receives "empty_receives" "Receives without a message";
            log_lines_dropped "log_lines_dropped" "Log lines dropped because standard error was not read in time";
            inflight_bytes_limit "inflight_bytes_limit" "Maximum bytes of bodies in flight; receives wait for room";
            inflight_bytes "inflight_bytes" "Bytes of bodies in flight or reserved for receives in flight";
        }
        all.register(
            "build",
            "Version and revision of the process",
            Info::new([
                ("version", env!("CARGO_PKG_VERSION")),
                ("revision", version::REVISION),
                ("data_layout", version::DATA_LAYOUT),
            ]),
        );
        (metrics, registry)
    }

    /// Records a finished call to the queue.
    pub fn called<T>(
        &self,
        operation: Operation,
        started: Instant,
        answer: &Result<T, QueueError>,
    ) {
        let seconds = started.elapsed().as_secs_f64();
        self.queue_calls
            .get_or_create(&Call { operation })
            .observe(seconds);
        if let Err(QueueError { kind: error, .. }) = answer {
            let failed = CallFailed {
                operation,
                error: *error,
            };
            self.queue_errors.get_or_create(&failed).inc();
        }
    }

    /// Records an answer of the queue to a receive.
    pub fn polled(&self, messages: usize) {
        self.last_poll.set(clock::now_secs());
        if messages == 0 {
            self.empty_receives.inc();
        } else {
            self.batch.observe(messages as f64);
            self.received.inc_by(messages as u64);
        }
    }

    /// Records a processed message; `lag_ms` is its time since SendMessage, if that is known.
    pub fn processed(&self, kind: Kind, outcome: Outcome, lag_ms: Option<u64>) {
        self.processed
            .get_or_create(&Processed::of(kind, outcome))
            .inc();
        let lag_ms = lag_ms.filter(|_| outcome == Outcome::Applied);
        if let Some(lag_ms) = lag_ms {
            self.lag.observe(lag_ms as f64 / 1000.0);
        }
        self.history.record(lag_ms);
        if matches!(
            outcome,
            Outcome::Applied | Outcome::Stale | Outcome::Skipped | Outcome::Ignored
        ) {
            self.last_success.set(clock::now_secs());
        }
    }

    /// Counts an event of an unknown kind in a message whose changes are applied. The message itself is counted with
    /// the outcome of its changes.
    pub fn unrecognised_beside_changes(&self) {
        let of_event = Processed::of(Kind::Other, Outcome::Unrecognised);
        self.processed.get_or_create(&of_event).inc();
    }

    /// Returns the number of messages with an outcome, over all kinds.
    pub fn ended(&self, outcome: Outcome) -> u64 {
        let of = |kind| {
            self.processed
                .get_or_create(&Processed::of(kind, outcome))
                .get()
        };
        Kind::ALL.into_iter().map(of).sum()
    }
}
