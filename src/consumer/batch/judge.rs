//! What became of each message: done, to be tried again, or refused.

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use super::Batch;
use super::visibility::retry_delay;
use crate::health::ConsumerView;
use crate::message::Kind;
use crate::metrics::Outcome;
use crate::plan::Step;
use crate::queue::{Acknowledgement, Delivery, Queue};
use crate::store::Applied;

enum Verdict {
    Done(Outcome),
    Locked,
    Rejected(String),
}

impl<Q: Queue> Batch<'_, Q> {
    /// Writes what is pending and ends what is done. Returns how many are locked; `None` after an
    /// error, when all of it is still pending.
    pub(super) async fn apply(&mut self, view: &ConsumerView) -> Option<usize> {
        let steps: Vec<&Step> = self
            .pending
            .iter()
            .flat_map(|work| &work.steps)
            .filter(|step| !step.items.is_empty())
            .collect();
        let applied = match self.shared.store.apply(&steps).await {
            Ok(applied) => applied,
            Err(error) => {
                tracing::debug!(%error, messages = self.pending.len(), "kept in hand until Redis takes writes");
                return None;
            }
        };
        // What a neighbour supersedes is done with only when that neighbour is.
        let unsettled: HashSet<String> = steps
            .iter()
            .zip(&applied)
            .filter(|(_, applied)| matches!(applied, Applied::Locked | Applied::Failed(_)))
            .map(|(step, _)| step.lock.clone())
            .collect();
        let mut applied = applied.into_iter();
        let mut locked = 0;
        for mut work in std::mem::take(&mut self.pending) {
            // Each refusal is a call to the queue, which may take as long as its timeout.
            view.progress();
            let steps = work.steps.iter();
            let sent = steps.filter(|step| !step.items.is_empty()).count();
            let mut verdict = verdict(applied.by_ref().take(sent));
            let relies_on_it = |step: &Step| unsettled.contains(&step.lock);
            if work.is_superseded() && work.steps.iter().any(relies_on_it) {
                // Its neighbour may go back to the queue without it, so it stands for itself again.
                if let Ok(understood) = self.parse(&work.delivery) {
                    work.steps = understood.steps;
                }
                if matches!(verdict, Verdict::Done(_)) {
                    verdict = Verdict::Locked;
                }
            }
            match verdict {
                Verdict::Done(outcome) => {
                    self.finish(work.delivery, work.kind, work.trace_id.as_deref(), outcome)
                        .await;
                }
                Verdict::Rejected(reason) => {
                    self.refuse(work.delivery, work.kind, Outcome::Failed, &reason)
                        .await;
                }
                Verdict::Locked => {
                    self.shared.metrics.locked.inc();
                    work.locked_tries += 1;
                    if work.locked_tries > self.shared.policy.lock_retries {
                        self.shared
                            .metrics
                            .processed(work.kind, Outcome::Failed, None);
                        tracing::warn!(
                            message_id = work.delivery.message_id,
                            tries = work.locked_tries,
                            "the customer stays locked by an SDK; the message goes back to the queue"
                        );
                        let delay = retry_delay(work.delivery.receive_count);
                        self.release(&[(work.delivery, delay)]).await;
                    } else {
                        locked += 1;
                        self.pending.push(work);
                    }
                }
            }
        }
        Some(locked)
    }

    /// Acknowledges a message that is done with.
    pub(super) async fn finish(
        &self,
        delivery: Delivery,
        kind: Kind,
        trace_id: Option<&str>,
        outcome: Outcome,
    ) {
        let metrics = &self.shared.metrics;
        self.in_flight.done(1);
        let lag_ms = delivery
            .attributes
            .sent
            .map(|sent| now_ms().saturating_sub(sent));
        metrics.processed(kind, outcome, lag_ms);
        tracing::debug!(
            message_id = delivery.message_id,
            kind = kind.as_str(),
            outcome = outcome.as_str(),
            receive_count = delivery.receive_count,
            lag_ms,
            trace_id,
            "done"
        );
        let acknowledgement = Acknowledgement {
            message_id: delivery.message_id,
            receipt: delivery.receipt,
            expires: delivery.expires,
        };
        self.shared.acknowledger.acknowledge(acknowledgement).await;
    }
}

/// Of a message, from what became of its steps. None at all: its neighbours superseded them.
fn verdict(applied: impl Iterator<Item = Applied>) -> Verdict {
    let (mut any_written, mut any_stale, mut any_skipped, mut any_locked) =
        (false, false, false, false);
    let mut any_expired = false;
    let mut rejected = None;
    for step in applied {
        match step {
            Applied::Written { written, stale } => {
                any_written |= written > 0;
                any_stale |= stale > 0;
            }
            Applied::NotCached => any_skipped = true,
            Applied::Expired => any_expired = true,
            Applied::Locked => any_locked = true,
            Applied::Failed(error) => rejected = Some(error.to_string()),
        }
    }
    match rejected {
        _ if any_locked => Verdict::Locked,
        Some(reason) => Verdict::Rejected(reason),
        None if any_written => Verdict::Done(Outcome::Applied),
        None if any_expired && !any_stale => Verdict::Done(Outcome::Expired),
        None if any_skipped && !any_stale => Verdict::Done(Outcome::Skipped),
        None => Verdict::Done(Outcome::Stale),
    }
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_judged_by_all_its_steps() {
        let written = |written, stale| Applied::Written { written, stale };
        let judged = |steps: Vec<Applied>| match verdict(steps.into_iter()) {
            Verdict::Done(outcome) => outcome.as_str(),
            Verdict::Locked => "locked",
            Verdict::Rejected(_) => "rejected",
        };
        assert_eq!(judged(vec![]), "stale");
        assert_eq!(judged(vec![written(0, 3)]), "stale");
        assert_eq!(judged(vec![written(1, 3)]), "applied");
        assert_eq!(judged(vec![Applied::NotCached]), "skipped");
        assert_eq!(judged(vec![written(1, 0), Applied::Locked]), "locked");
    }
}
