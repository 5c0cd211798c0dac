//! What becomes of a message that cannot be applied.

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
const FIFO_PATIENCE: Duration = Duration::from_secs(5);

/// Deliveries, in receive limits, after which a message is given up without being looked at; and the
/// least of them. Each delivery beyond the limit ended without a verdict: the process may have died
/// of it.
const HOPELESS_LIMITS: u32 = 3;
const HOPELESS_LEAST: u32 = 10;

impl<Q: Queue> Batch<'_, Q> {
    /// How often a message that cannot be applied is received.
    pub(super) fn receive_limit(&self) -> u32 {
        let limit = self.shared.work.policy.max_receive_count;
        let redrive = self.shared.flow.settings.borrow().max_receive_count;
        redrive.map_or(limit, |redrive| redrive.min(limit))
    }

    pub(super) fn is_hopeless(&self, held: &Held) -> bool {
        let limit = self.receive_limit().saturating_mul(HOPELESS_LIMITS);
        held.receive_count > limit.max(HOPELESS_LEAST)
    }

    /// Before anything is made of its body.
    pub(super) async fn refuse_hopeless(&mut self, held: Held) {
        let reason = format!(
            "received {} times without an outcome: the worker may have been ended by it each time, or the customer stays locked; check for restarts, and the locks of SDKs",
            held.receive_count
        );
        self.refuse(held, Kind::Other, Outcome::Failed, &reason)
            .await;
    }

    /// A message whose call fails alone while Redis is well.
    pub(super) async fn refuse_blamed(&mut self, work: Work) {
        let reason = format!(
            "the call to Redis fails for this message alone: {}",
            work.blamed.unwrap_or_default()
        );
        self.refuse(work.held, work.kind, Outcome::Failed, &reason)
            .await;
    }

    /// A message that cannot be applied: tried again until the limit, then left for the dead-letter
    /// queue or, where there is none, kept in Redis.
    pub(super) async fn refuse(&mut self, held: Held, kind: Kind, outcome: Outcome, reason: &str) {
        let policy = &self.shared.work.policy;
        self.shared.watch.metrics.processed(kind, outcome, None);
        let redrive = self.shared.flow.settings.borrow().max_receive_count;
        let (count, limit) = (held.receive_count, self.receive_limit());
        let (message_id, kind_name) = (&held.message_id, kind.as_str());
        // Until the queue has told whether it has a dead-letter queue, nothing is given up.
        let known = self.shared.flow.settings.has_changed().unwrap_or(true);
        if count < limit || !known {
            if let Some(unsaid) = self.shared.watch.refusals.allow() {
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
                    "a message is given up and left for the dead-letter queue"
                );
            }
            // At its own limit the queue moves the message when it would hand it out again.
            let delay = match count >= redrive {
                true => Duration::ZERO,
                false if policy.fifo => retry_delay(count).min(FIFO_PATIENCE),
                false => retry_delay(count),
            };
            return self.release(held, delay).await;
        }
        let letter = Letter::given_up(held, kind, reason.to_owned());
        self.letters.push_back(letter);
    }
}
