//! Collects the state of the process for `/status` and the summary line of the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use crate::health::{ConsumerStatus, Health, Readiness};
use crate::metrics::{Lag, Metrics, Outcome, Point, ReadResult, UpstreamOutcome};
use crate::queue::{Depth, Identity, Settings};
use crate::reads::Reads;
use crate::store::Tracking;
use crate::telemetry::{Recent, RecentLine, Redactor};
use crate::version;

/// The sources of a snapshot.
pub struct Observer {
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub settings: watch::Receiver<Settings>,
    pub credentials: watch::Receiver<Option<Identity>>,
    pub recent: Recent,
    pub redactor: Arc<Redactor>,
    /// Variables and their effective values, secrets replaced.
    pub configuration: BTreeMap<&'static str, String>,
    /// For example `standalone` or `sentinel`.
    pub redis_mode: &'static str,
    pub redis_version: Box<dyn Fn() -> Option<String> + Send + Sync>,
    /// The read API, if it runs.
    pub reads: Option<Reads>,
}

/// A snapshot of the process.
#[derive(Serialize)]
pub struct Snapshot {
    pub version: &'static str,
    pub revision: &'static str,
    pub data_layout: &'static str,
    pub uptime_secs: u64,
    #[serde(flatten)]
    pub readiness: Readiness,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unready_reason: Option<String>,
    pub redis_mode: &'static str,
    pub redis_version: Option<String>,
    pub queue: Queue,
    /// `null`: no questions are answered.
    pub reads: Option<ReadStatus>,
    /// Over the last five minutes.
    pub lag: Lag,
    pub counters: BTreeMap<&'static str, u64>,
    pub history: Vec<Point>,
    pub consumer_states: Vec<ConsumerStatus>,
    pub recent_errors: Vec<RecentLine>,
    pub configuration: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
pub struct Queue {
    pub visibility_timeout_secs: u64,
    /// `null`: no redrive policy, or no permission to read it.
    pub redrive_after: Option<u32>,
    /// `null`: unknown, or no permission to read it.
    pub depth: Option<Depth>,
    /// `null`: unknown so far.
    pub credentials: Option<Identity>,
}

/// The metrics of the read API.
#[derive(Serialize)]
pub struct ReadStatus {
    /// Whether Redis reports changes.
    pub tracking: bool,
    /// Why it does not report changes.
    pub tracking_reason: Option<String>,
    pub redis: bool,
    pub upstream: bool,
    /// Customers and resources in memory, and their bytes.
    pub copies: usize,
    pub copy_bytes: u64,
    pub copy_bytes_limit: i64,
    pub evictions: u64,
    pub invalidations: u64,
    pub joined: u64,
    /// Questions since the start, by result.
    pub questions: BTreeMap<&'static str, u64>,
    /// Requests to the Edge API for a customer, by outcome.
    pub upstream_requests: BTreeMap<&'static str, u64>,
}

const LAG_WINDOW: Duration = Duration::from_secs(300);
const MINUTE: Duration = Duration::from_secs(60);

impl Observer {
    pub fn snapshot(&self) -> Snapshot {
        let settings = *self.settings.borrow();
        Snapshot {
            version: env!("CARGO_PKG_VERSION"),
            revision: version::REVISION,
            data_layout: version::DATA_LAYOUT,
            uptime_secs: self.health.uptime().as_secs(),
            readiness: self.health.readiness(),
            unready_reason: self.unready_reason(),
            redis_mode: self.redis_mode,
            redis_version: self.redacted((self.redis_version)()),
            queue: Queue {
                visibility_timeout_secs: settings.visibility_timeout.as_secs(),
                redrive_after: settings.max_receive_count,
                depth: settings.depth,
                credentials: self.credentials.borrow().clone(),
            },
            reads: self.reads.as_ref().map(|reads| self.read_status(reads)),
            lag: self.metrics.history.lag(LAG_WINDOW),
            counters: self.counters(),
            history: self.metrics.history.points(),
            consumer_states: self.consumers(),
            recent_errors: self.recent.all(),
            configuration: self.configuration.clone(),
        }
    }

    /// Why the process is not ready. It may quote an answer of Redis, so it is redacted.
    pub fn unready_reason(&self) -> Option<String> {
        self.redacted(self.health.unready_reason())
    }

    /// By what questions can be answered now.
    pub fn sources(&self) -> Vec<&'static str> {
        let Some(reads) = &self.reads else {
            return Vec::new();
        };
        let (sources, is_memory) = (reads.sources(), reads.is_memory());
        let of_store = if is_memory { "the queue" } else { "Redis" };
        let all = [
            (sources.redis, of_store),
            (sources.upstream, "the Edge API"),
            (sources.copies, "memory"),
        ];
        all.into_iter()
            .filter_map(|(is_there, name)| is_there.then_some(name))
            .collect()
    }

    fn read_status(&self, reads: &Reads) -> ReadStatus {
        let metrics = &reads.metrics;
        let sources = reads.sources();
        let reason = match reads.tracking() {
            Tracking::On => None,
            Tracking::Refused(reason) | Tracking::Away(reason) => Some(reason),
        };
        ReadStatus {
            tracking: reason.is_none(),
            tracking_reason: self.redacted(reason),
            redis: sources.redis,
            upstream: sources.upstream,
            copies: reads.owners(),
            copy_bytes: reads.bytes(),
            copy_bytes_limit: metrics.copy_bytes_limit.get(),
            evictions: metrics.evictions.get(),
            invalidations: metrics.invalidations.get(),
            joined: metrics.joined.get(),
            questions: ReadResult::ALL
                .map(|result| (result.as_str(), metrics.count(result)))
                .into(),
            upstream_requests: UpstreamOutcome::ALL
                .map(|outcome| (outcome.as_str(), metrics.upstream_count(outcome)))
                .into(),
        }
    }

    fn consumers(&self) -> Vec<ConsumerStatus> {
        let mut consumers = self.health.consumers();
        for consumer in &mut consumers {
            consumer.last_error = self.redacted(consumer.last_error.take());
        }
        consumers
    }

    /// Texts of other services, which may echo requests.
    fn redacted(&self, text: Option<String>) -> Option<String> {
        text.map(|text| self.redactor.redact(&text).into_owned())
    }

    fn counters(&self) -> BTreeMap<&'static str, u64> {
        let metrics = &self.metrics;
        let outcomes = Outcome::ALL.map(|outcome| (outcome.as_str(), metrics.ended(outcome)));
        let others = [
            ("received", metrics.received.get()),
            ("redelivered", metrics.redelivered.get()),
            ("coalesced_items", metrics.coalesced.get()),
            ("locked_retries", metrics.locked.get()),
            ("acknowledged", metrics.acknowledged.get()),
            ("acknowledge_failures", metrics.acknowledge_failed.get()),
            ("acknowledged_late", metrics.acknowledged_late.get()),
            ("released", metrics.released.get()),
            ("dead_lettered", metrics.dead_lettered.get()),
            ("redis_errors", metrics.redis_errors.get()),
            ("redis_data_lost", metrics.redis_data_lost.get()),
            (
                "redis_replicas_missing",
                metrics.redis_replicas_missing.get(),
            ),
            ("consumers_restarted", metrics.consumers_restarted.get()),
        ];
        outcomes.into_iter().chain(others).collect()
    }

    /// Logs one line a minute instead of one for each message.
    pub async fn summarise(&self) {
        let mut before = self.counters();
        loop {
            tokio::time::sleep(MINUTE).await;
            let now = self.counters();
            let more = |name| now.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
            let lag = self.metrics.history.lag(MINUTE);
            tracing::info!(
                received = more("received"),
                applied = more("applied"),
                stale = more("stale"),
                skipped = more("skipped"),
                ignored = more("ignored"),
                unrecognised = more("unrecognised"),
                invalid = more("invalid"),
                failed = more("failed"),
                redelivered = more("redelivered"),
                lag_p50_ms = lag.p50_ms,
                lag_p99_ms = lag.p99_ms,
                consumers = self.health.readiness().consumers,
                queue_visible = self.settings.borrow().depth.map(|depth| depth.visible),
                "summary of the last minute"
            );
            before = now;
        }
    }
}
