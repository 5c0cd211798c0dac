//! What becomes of a message that cannot be applied.

use std::time::Duration;

use super::Batch;
use super::visibility::retry_delay;
use crate::message::Kind;
use crate::metrics::Outcome;
use crate::queue::{Acknowledgement, Delivery, Queue};
use crate::store::DeadLetter;

/// The longest pause between deliveries of a message given up that holds a FIFO group, for a redrive
/// policy that allows more of them than `MAX_RECEIVE_COUNT`.
const FIFO_PATIENCE: Duration = Duration::from_secs(5);

impl<Q: Queue> Batch<'_, Q> {
    /// A message that cannot be applied: tried again until the limit, then left for the dead-letter
    /// queue or, where there is none, kept in Redis.
    pub(super) async fn refuse(
        &self,
        delivery: Delivery,
        kind: Kind,
        outcome: Outcome,
        reason: &str,
    ) {
        let policy = &self.shared.policy;
        self.shared.metrics.processed(kind, outcome, None);
        let redrive = self.shared.settings.borrow().max_receive_count;
        let count = delivery.receive_count;
        let limit = redrive.map_or(policy.max_receive_count, |redrive| {
            redrive.min(policy.max_receive_count)
        });
        let (message_id, kind_name) = (&delivery.message_id, kind.as_str());
        // Until the queue has told whether it has a dead-letter queue, nothing is given up.
        let known = self.shared.settings.has_changed().unwrap_or(true);
        if count < limit || !known {
            if let Some(unsaid) = self.shared.refusals.allow() {
                tracing::warn!(
                    message_id,
                    kind = kind_name,
                    receive_count = count,
                    limit,
                    reason,
                    unsaid,
                    "a message cannot be applied; it is tried again"
                );
            }
            // A FIFO group waits for it, and a body does not get better.
            let delay = match (policy.fifo, known) {
                (true, true) => Duration::ZERO,
                (true, false) => retry_delay(count).min(FIFO_PATIENCE),
                (false, _) => retry_delay(count),
            };
            return self.release(&[(delivery, delay)]).await;
        }
        if let Some(redrive) = redrive {
            if count == limit {
                self.shared.metrics.dead_lettered.inc();
                tracing::error!(
                    message_id,
                    kind = kind_name,
                    receive_count = count,
                    reason,
                    "a message is given up and left for the dead-letter queue"
                );
            }
            // At its own limit the queue moves the message when it would hand it out again.
            let delay = match count >= redrive {
                true => Duration::ZERO,
                false if policy.fifo => retry_delay(count).min(FIFO_PATIENCE),
                false => retry_delay(count),
            };
            return self.release(&[(delivery, delay)]).await;
        }
        let letter = DeadLetter {
            message_id,
            reason,
            kind: kind_name,
            receive_count: count,
            sent_at: delivery.attributes.sent,
            body: &delivery.body,
            type_attribute: delivery.attributes.kind.as_deref(),
        };
        match self
            .shared
            .store
            .keep(letter, policy.dead_letter_max_len)
            .await
        {
            Ok(()) => {
                self.shared.metrics.dead_lettered.inc();
                tracing::error!(
                    message_id,
                    kind = kind_name,
                    receive_count = count,
                    reason,
                    "a message is given up; its body is kept in the dead-letter stream in Redis"
                );
                self.in_flight.done(1);
                let acknowledgement = Acknowledgement {
                    message_id: delivery.message_id,
                    receipt: delivery.receipt,
                    expires: delivery.expires,
                };
                self.shared.acknowledger.acknowledge(acknowledgement).await;
            }
            Err(error) => {
                if let Some(unsaid) = self.shared.refusals.allow() {
                    tracing::warn!(message_id, %error, unsaid, "a message to be given up could not be kept; it stays in the queue");
                }
                self.release(&[(delivery, retry_delay(count))]).await;
            }
        }
    }
}
