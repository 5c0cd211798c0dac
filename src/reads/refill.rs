//! After Redis has lost its data: loads the owners that are asked for, most often first, so that Redis holds them again.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::Reads;

const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// An owner that nobody asked for within this time is loaded by its next question.
const RECENT_USE: Duration = Duration::from_secs(3_600);
/// The time between two loads: fifty a second for each process.
const LOAD_INTERVAL: Duration = Duration::from_millis(20);

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
        let owners = reads.copy.recent(RECENT_USE);
        tracing::info!(
            customers = owners.len(),
            "Redis lost its data; loading the customers of the last hour"
        );
        let mut failed = 0_usize;
        for key in &owners {
            if losses.get() != known {
                break;
            }
            let loaded = reads.load(key.owner()).await;
            failed += usize::from(!matches!(loaded, Some(Ok(_))));
            tokio::time::sleep(LOAD_INTERVAL).await;
        }
        reads
            .metrics
            .refilled
            .inc_by((owners.len() - failed.min(owners.len())) as u64);
        tracing::info!(
            customers = owners.len(),
            failed,
            "the customers of the last hour were loaded"
        );
    }
}
