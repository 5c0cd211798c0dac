//! After Redis has lost its data: loads the owners that are asked for, most often first, so that Redis holds them again.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;

use super::Reads;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Owners that nobody asked for since then are left to their next question.
const RECENT: Duration = Duration::from_secs(3_600);
/// Fifty a second for each process.
const PAUSE: Duration = Duration::from_millis(20);

/// Watches the counter of losses, which the monitor of Redis counts up. What is in memory is not written back: a
/// customer that was purged meanwhile would return with it. Each owner is read from Redis, where another process may
/// have brought it, else from the Edge API.
pub async fn run(reads: Reads, losses: Counter) {
    let mut known = losses.get();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = losses.get();
        if now == known || !reads.loader.tracked.is_up() {
            continue;
        }
        known = now;
        let owners = reads.copy.recent(RECENT);
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
            tokio::time::sleep(PAUSE).await;
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
