//! When messages in hand are handed out again: later, while we are at it; soon, when we are not.

use std::time::{Duration, Instant};

use super::Batch;
use crate::consumer::Shared;
use crate::metrics::Operation;
use crate::queue::{Delivery, Queue};

/// The longest pause before a message that cannot be applied is handed out again.
const LONGEST_RETRY_SECS: u64 = 300;

impl<Q: Queue> Batch<'_, Q> {
    /// Keeps what is in hand from being handed out again while we are at it: each is extended when
    /// half of its time is over. What has expired is no longer ours to extend, and its
    /// acknowledgement will say so.
    pub(super) async fn extend(&mut self) {
        let timeout = self
            .shared
            .settings
            .borrow()
            .visibility_timeout
            .max(Duration::from_secs(10));
        let now = Instant::now();
        let half = self.shared.settings.borrow().visibility_timeout / 2;
        let mut due: Vec<&mut Delivery> = self
            .pending
            .iter_mut()
            .map(|work| &mut work.delivery)
            .chain(&mut self.waiting)
            .filter(|delivery| delivery.expires > now && delivery.expires - now < half)
            .collect();
        for chunk in due.chunks_mut(10) {
            let changes: Vec<(&str, Duration)> = chunk
                .iter()
                .map(|delivery| (delivery.receipt.as_str(), timeout))
                .collect();
            let Some(refused) = change_visibility(self.shared, &changes).await else {
                continue;
            };
            let expires = Instant::now() + timeout;
            for (position, delivery) in chunk.iter_mut().enumerate() {
                if refused.contains(&position) {
                    // Someone else may have it by now. We go on: the write rule makes that safe.
                    continue;
                }
                delivery.expires = expires;
                self.shared.metrics.extended.inc();
            }
        }
    }

    /// Gives messages back, to be handed out again after their delay. If the call fails they are
    /// after their visibility timeout.
    pub(super) async fn release(&self, messages: &[(Delivery, Duration)]) {
        let count = messages.len();
        self.in_flight.done(count);
        let changes: Vec<(&str, Duration)> = messages
            .iter()
            .map(|(delivery, delay)| (delivery.receipt.as_str(), *delay))
            .collect();
        if let Some(refused) = change_visibility(self.shared, &changes).await {
            self.shared
                .metrics
                .released
                .inc_by(count.saturating_sub(refused.len()) as u64);
        }
    }
}

/// The positions refused, or `None` if the call failed.
async fn change_visibility<Q: Queue>(
    shared: &Shared<Q>,
    changes: &[(&str, Duration)],
) -> Option<Vec<usize>> {
    let started = Instant::now();
    let answer = shared.queue.change_visibility(changes).await;
    shared
        .metrics
        .called(Operation::ChangeVisibility, started, &answer);
    match answer {
        Ok(refused) => Some(refused.into_iter().map(|entry| entry.position).collect()),
        Err(error) => {
            tracing::warn!(%error, messages = changes.len(), "changing the visibility of messages failed");
            None
        }
    }
}

/// Grows with the deliveries so far, with full jitter; whole seconds, as SQS counts them.
pub(super) fn retry_delay(receive_count: u32) -> Duration {
    let ceiling = 1_u64.checked_shl(receive_count.min(20)).unwrap_or(u64::MAX);
    Duration::from_secs(1 + fastrand::u64(0..ceiling.min(LONGEST_RETRY_SECS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_spread_and_bounded() {
        for count in [1, 3, 9, 40, u32::MAX] {
            let most = 1 + (1_u64 << count.min(20)).min(LONGEST_RETRY_SECS);
            for _ in 0..200 {
                assert!(
                    (1..=most).contains(&retry_delay(count).as_secs()),
                    "{count}"
                );
            }
        }
    }
}
