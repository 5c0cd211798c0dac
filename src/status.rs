//! Collects the state of the process for `/status` and the summary line of the log.

mod memory;
mod reads;

pub use memory::{MemoryStatus, ObservedMemory};
pub use reads::ReadStatus;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use crate::health::{ConsumerStatus, Health, Readiness};
use crate::metrics::{Lag, Metrics, Outcome, Point};
use crate::queue::{Depth, Identity, Settings};
use crate::reads::Reads;
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
    /// The state, if it is in this process and not in Redis.
    pub memory: Option<ObservedMemory>,
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
    /// Nothing where the state is in this process.
    #[serde(flatten)]
    pub redis: Option<RedisStatus>,
    /// `null`: the state is in Redis.
    pub memory: Option<MemoryStatus>,
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

/// The server that holds the state.
#[derive(Serialize)]
pub struct RedisStatus {
    #[serde(rename = "redis_mode")]
    pub mode: &'static str,
    #[serde(rename = "redis_version")]
    pub version: Option<String>,
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
            redis: self.memory.is_none().then(|| RedisStatus {
                mode: self.redis_mode,
                version: self.redacted((self.redis_version)()),
            }),
            memory: self.memory.as_ref().map(|it| it.status(&self.metrics)),
            queue: Queue {
                visibility_timeout_secs: settings.visibility_timeout.as_secs(),
                redrive_after: settings.max_receive_count,
                depth: settings.depth,
                credentials: self.credentials.borrow().clone(),
            },
            reads: self
                .reads
                .as_ref()
                .map(|reads| ReadStatus::of(reads, &self.redactor)),
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
        let is_there = |name: &str| self.memory.is_none() || !name.starts_with("redis_");
        let all = outcomes.into_iter().chain(others);
        all.filter(|(name, _)| is_there(name)).collect()
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
