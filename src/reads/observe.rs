//! Keeps the gauges of the read API up to date.

use std::time::Duration;

use super::Reads;
use crate::store::Tracking;

/// Keeps the gauges up to date.
pub async fn watch(reads: Reads) {
    loop {
        reads.observe();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

impl Reads {
    fn observe(&self) {
        let metrics = &self.metrics;
        let tracked = &self.loader.tracked;
        let is_on = matches!(tracked.tracking(), Tracking::On);
        metrics.tracking_up.set(i64::from(is_on));
        metrics
            .copies
            .set(i64::try_from(self.owners()).unwrap_or(i64::MAX));
        metrics
            .copy_bytes
            .set(i64::try_from(self.bytes()).unwrap_or(i64::MAX));
        metrics
            .breaker_open
            .set(i64::from(self.loader.breaker.is_open()));
        raise(&metrics.invalidations, tracked.invalidations());
        raise(&metrics.tracking_losses, tracked.losses());
        raise(&metrics.evictions, self.copy.evictions());
    }
}

/// Brings a counter to what others have counted.
fn raise(counter: &prometheus_client::metrics::counter::Counter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
