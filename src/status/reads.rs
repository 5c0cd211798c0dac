//! What `/status` shows of the read API.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::metrics::{ReadResult, UpstreamOutcome};
use crate::reads::Reads;
use crate::store::Tracking;
use crate::telemetry::Redactor;

/// The metrics of the read API.
#[derive(Serialize)]
pub struct ReadStatus {
    /// Whether the store reports changes.
    pub tracking: bool,
    /// Why it does not report changes.
    pub tracking_reason: Option<String>,
    /// Whether Redis answers; nothing where the state is in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<bool>,
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

impl ReadStatus {
    pub fn of(reads: &Reads, redactor: &Redactor) -> Self {
        let metrics = &reads.metrics;
        let sources = reads.sources();
        let reason = match reads.tracking() {
            Tracking::On => None,
            Tracking::Refused(reason) | Tracking::Away(reason) => Some(reason),
        };
        let is_there = |result: &ReadResult| !reads.is_memory() || *result != ReadResult::Redis;
        let results = ReadResult::ALL.into_iter().filter(is_there);
        Self {
            tracking: reason.is_none(),
            tracking_reason: reason.map(|text| redactor.redact(&text).into_owned()),
            redis: (!reads.is_memory()).then_some(sources.redis),
            upstream: sources.upstream,
            copies: reads.owners(),
            copy_bytes: reads.bytes(),
            copy_bytes_limit: metrics.copy_bytes_limit.get(),
            evictions: metrics.evictions.get(),
            invalidations: metrics.invalidations.get(),
            joined: metrics.joined.get(),
            questions: results
                .map(|result| (result.as_str(), metrics.count(result)))
                .collect(),
            upstream_requests: UpstreamOutcome::ALL
                .map(|outcome| (outcome.as_str(), metrics.upstream_count(outcome)))
                .into(),
        }
    }
}
