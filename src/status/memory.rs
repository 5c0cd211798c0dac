//! What `/status` shows of a state in this process.

use serde::Serialize;

use crate::clock;
use crate::memory::{INCOMPLETE, NOT_KEPT};
use crate::metrics::{MemoryMetrics, Metrics};

/// A state in this process, and whether a journal keeps it.
pub struct ObservedMemory {
    pub metrics: MemoryMetrics,
    pub is_kept: bool,
}

#[derive(Serialize)]
pub struct MemoryStatus {
    /// The danger, if nothing keeps the state, or if it was restored from damaged files.
    pub warning: Option<&'static str>,
    pub proven: bool,
    /// Customers and resources of damaged files that nothing has confirmed since.
    pub unconfirmed: i64,
    /// Customers and resources, and their bytes.
    pub owners: i64,
    pub bytes: i64,
    pub bytes_limit: i64,
    pub evictions: u64,
    pub foreign_in_flight: i64,
    /// Since the last snapshot; `null`: nothing keeps the state.
    pub journal_bytes: Option<i64>,
    /// `null`: this process wrote no snapshot.
    pub snapshot_age_secs: Option<u64>,
}

impl ObservedMemory {
    pub fn status(&self, metrics: &Metrics) -> MemoryStatus {
        let (own, of_files) = (&self.metrics, &metrics.snapshots);
        let written = of_files.last.get();
        let now_secs = clock::now_ms() / 1_000;
        MemoryStatus {
            warning: match (self.is_kept, own.unconfirmed.get()) {
                (false, _) => Some(NOT_KEPT),
                (true, 0) => None,
                (true, _) => Some(INCOMPLETE),
            },
            proven: own.proven.get() > 0,
            unconfirmed: own.unconfirmed.get(),
            owners: own.owners.get(),
            bytes: own.bytes.get(),
            bytes_limit: own.bytes_limit.get(),
            evictions: own.evictions.get(),
            foreign_in_flight: own.foreign_in_flight.get(),
            journal_bytes: self.is_kept.then(|| of_files.journal_bytes.get()),
            // A time of this century in whole seconds.
            snapshot_age_secs: (written > 0.0).then(|| now_secs.saturating_sub(written as u64)),
        }
    }
}
