//! Defines the metrics of the state in memory and of its snapshots.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::clock;

/// The metrics of snapshots.
#[derive(Debug, Clone, Default)]
pub struct SnapshotMetrics {
    pub written: Counter,
    pub failed: Counter,
    pub last: Gauge<f64, AtomicU64>,
    pub took: Gauge<f64, AtomicU64>,
    pub bytes: Gauge,
    pub journal_bytes: Gauge,
}

impl SnapshotMetrics {
    /// Registers them, where snapshots are written.
    pub fn register(&self, registry: &mut Registry) {
        let all = registry.sub_registry_with_prefix("entitlement_sync_snapshot");
        all.register("written", "Snapshots written", self.written.clone());
        all.register(
            "failures",
            "Snapshots that could not be written",
            self.failed.clone(),
        );
        all.register_with_unit(
            "last_success_timestamp",
            "When the last snapshot was written, as epoch seconds",
            Unit::Seconds,
            self.last.clone(),
        );
        all.register_with_unit(
            "last_duration",
            "Time that the last snapshot took",
            Unit::Seconds,
            self.took.clone(),
        );
        all.register_with_unit(
            "last_size",
            "Size of the last snapshot",
            Unit::Bytes,
            self.bytes.clone(),
        );
        all.register_with_unit(
            "journal",
            "Journal that no snapshot holds yet",
            Unit::Bytes,
            self.journal_bytes.clone(),
        );
    }

    pub fn saved(&self, took: Duration, bytes: u64) {
        self.written.inc();
        self.last.set(clock::now_secs());
        self.took.set(took.as_secs_f64());
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// The metrics of the state in memory.
#[derive(Debug, Clone, Default)]
pub struct MemoryMetrics {
    pub owners: Gauge,
    pub bytes: Gauge,
    pub bytes_limit: Gauge,
    pub evictions: Counter,
    pub proven: Gauge,
    pub unconfirmed: Gauge,
    pub foreign_in_flight: Gauge,
}

impl MemoryMetrics {
    /// Registers them, where the state is in memory.
    pub fn register(&self, registry: &mut Registry) {
        let all = registry.sub_registry_with_prefix("entitlement_sync_memory");
        all.register(
            "owners",
            "Customers and resources in memory",
            self.owners.clone(),
        );
        all.register_with_unit(
            "state",
            "Memory that they take",
            Unit::Bytes,
            self.bytes.clone(),
        );
        all.register_with_unit(
            "state_limit",
            "Memory that they may take",
            Unit::Bytes,
            self.bytes_limit.clone(),
        );
        all.register(
            "evictions",
            "Customers and resources that made room for others",
            self.evictions.clone(),
        );
        all.register(
            "proven",
            "1 while the queue, read to its end, proves the state",
            self.proven.clone(),
        );
        all.register(
            "unconfirmed",
            "Customers and resources of damaged files that nothing has confirmed since",
            self.unconfirmed.clone(),
        );
        all.register(
            "foreign_in_flight",
            "Messages in flight that another process seems to have received",
            self.foreign_in_flight.clone(),
        );
    }
}
