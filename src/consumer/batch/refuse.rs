//! Retries messages that cannot be applied, and gives up on them at the limit.

use std::time::Duration;

use super::Batch;
use super::letter::Letter;
use super::retry::retry_delay;
use super::work::Work;
use crate::consumer::lease::Held;
use crate::message::Kind;
use crate::metrics::Outcome;
use crate::queue::Queue;

/// The longest pause between deliveries of a message given up that holds a FIFO group, for a redrive
/// policy that allows more of them than `MAX_RECEIVE_COUNT`.
const MAX_FIFO_PAUSE: Duration = Duration::from_secs(5);

/// Deliveries, as a multiple of the receive limit, after which a message is given up unread; and their
/// minimum. Each delivery beyond the limit ended without a verdict: the message may have ended the
/// process.
const GIVE_UP_UNREAD_LIMITS: u32 = 3;
const MIN_GIVE_UP_UNREAD: u32 = 10;

impl<Q: Queue> Batch<'_, Q> {
    /// Returns how often a message that cannot be applied is received.
    pub(super) fn receive_limit(&self) -> u32 {
        let limit = self.shared.work.policy.max_receive_count;
        let redrive = self.shared.flow.settings.borrow().max_receive_count;
        redrive.map_or(limit, |redrive| redrive.min(limit))
    }

    pub(super) fn is_hopeless(&self, held: &Held) -> bool {
        let limit = self.receive_limit().saturating_mul(GIVE_UP_UNREAD_LIMITS);
        held.receive_count > limit.max(MIN_GIVE_UP_UNREAD)
    }

    /// Refuses a message before its body is read.
    pub(super) async fn refuse_hopeless(&mut self, held: Held) {
        let reason = format!(
            "received {} times without an outcome: it may have ended the worker each time, or the customer stays locked; check for restarts and for locks of SDKs",
            held.receive_count
        );
        self.refuse(held, Kind::Other, Outcome::Failed, &reason)
            .await;
    }

    /// Refuses a message whose call fails alone while Redis takes other writes.
    pub(super) async fn refuse_blamed(&mut self, work: Work) {
        let reason = format!(
            "the call to Redis fails only for this message: {}",
            work.blamed.unwrap_or_default()
        );
        self.refuse(work.held, work.kind, Outcome::Failed, &reason)
            .await;
    }

    /// Refuses a message that cannot be applied: it is retried until the limit, then left for the dead-letter
    /// queue or, where there is none, kept in Redis.
    pub(super) async fn refuse(&mut self, held: Held, kind: Kind, outcome: Outcome, reason: &str) {
        let policy = &self.shared.work.policy;
        self.shared.watch.metrics.processed(kind, outcome, None);
        let redrive = self.shared.flow.settings.borrow().max_receive_count;
        let (count, limit) = (held.receive_count, self.receive_limit());
        let (message_id, kind_name) = (&held.message_id, kind.as_str());
        // Nothing is given up until the worker knows whether the queue has a dead-letter queue.
        let known = self.shared.flow.settings.has_changed().unwrap_or(true);
        if count < limit || !known {
            if let Some(suppressed) = self.shared.watch.refusals.allow() {
                tracing::warn!(
                    message_id,
                    kind = kind_name,
                    receive_count = count,
                    limit,
                    reason,
                    suppressed,
                    "cannot apply a message; SQS will redeliver it"
                );
            }
            // Its FIFO group waits for it, and a retry cannot fix a body.
            let delay = match (policy.fifo, known) {
                (true, true) => Duration::ZERO,
                (true, false) => retry_delay(count).min(MAX_FIFO_PAUSE),
                (false, _) => retry_delay(count),
            };
            return self.release(held, delay).await;
        }
        if let Some(redrive) = redrive {
            if count == limit {
                self.shared.watch.metrics.dead_lettered.inc();
                tracing::error!(
                    message_id,
                    kind = kind_name,
                    receive_count = count,
                    reason,
                    "gave up on a message; it is left for the dead-letter queue"
                );
            }
            // At its own limit the queue moves the message instead of delivering it again.
            let delay = match count >= redrive {
                true => Duration::ZERO,
                false if policy.fifo => retry_delay(count).min(MAX_FIFO_PAUSE),
                false => retry_delay(count),
            };
            return self.release(held, delay).await;
        }
        let letter = Letter::given_up(held, kind, reason.to_owned());
        self.letters.push_back(letter);
    }
}
