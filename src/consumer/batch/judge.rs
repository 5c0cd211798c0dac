//! Decides on each message after an attempt: finished, retried or refused.

use std::time::Duration;

use super::Batch;
use super::apply::Verdict;
use super::letter::Letter;
use super::retry::retry_delay;
use super::work::Work;
use crate::clock::now_ms;
use crate::consumer::lease::Held;
use crate::message::Kind;
use crate::metrics::Outcome;
use crate::queue::Queue;
use crate::store::StoreError;

/// A message whose changes are applied, or that needs none.
pub(super) struct Finished {
    pub kind: Kind,
    pub trace_id: Option<String>,
    pub outcome: Outcome,
    /// Whether it has an event of an unknown kind in which no change was found.
    pub has_unknown: bool,
}

impl<Q: Queue> Batch<'_, Q> {
    /// Ends a message, or keeps it pending. Returns whether it must be sent again shortly. `error`
    /// is why an outcome of the attempt is unknown.
    pub(super) async fn judge(
        &mut self,
        mut work: Work,
        verdict: Verdict,
        error: Option<&StoreError>,
    ) -> bool {
        let suspects = &self.shared.flow.suspects;
        if work.is_suspect && !matches!(verdict, Verdict::Unknown) {
            suspects.forget(&work.held.message_id);
            work.is_suspect = false;
        }
        match verdict {
            Verdict::Done => {
                let outcome = work.done.outcome();
                self.end(work, outcome).await;
                false
            }
            Verdict::Rejected(reason) => {
                self.refuse(work.held, work.kind, Outcome::Failed, &reason)
                    .await;
                false
            }
            Verdict::Unknown => {
                if let Some(error) = error.filter(|error| error.may_be_of_the_call()) {
                    if work.is_suspect && suspects.failed_alone(&work.held.message_id) {
                        work.blamed = Some(error.to_string());
                    }
                    work.is_suspect = true;
                }
                self.pending.push(work);
                false
            }
            Verdict::Again => {
                self.shared.watch.metrics.locked.inc();
                work.locked_tries += 1;
                if work.locked_tries <= self.shared.work.policy.lock_retries {
                    self.pending.push(work);
                    return true;
                }
                self.shared
                    .watch
                    .metrics
                    .processed(work.kind, Outcome::Failed, None);
                tracing::warn!(
                    message_id = work.held.message_id,
                    tries = work.locked_tries,
                    "an SDK keeps the customer locked; the message returned to the queue"
                );
                let delay = retry_delay(work.held.receive_count);
                self.release(work.held, delay).await;
                false
            }
        }
    }

    /// Ends a message whose changes are applied: acknowledges it, or first keeps a copy if it has an event of an
    /// unknown kind.
    pub(super) async fn end(&mut self, work: Work, outcome: Outcome) {
        let finished = Finished {
            kind: work.kind,
            trace_id: work.trace_id,
            outcome,
            has_unknown: work.unrecognised.is_some(),
        };
        if let Some(name) = work.unrecognised
            && let Some(seen) = self.shared.watch.unknown.count(&name)
        {
            let letter = Letter::unrecognised(work.held, name, seen, finished);
            self.letters.push_back(letter);
            return;
        }
        self.finish(work.held, &finished).await;
    }

    /// Acknowledges a finished message.
    pub(super) async fn finish(&self, held: Held, finished: &Finished) {
        let (kind, outcome) = (finished.kind, finished.outcome);
        let metrics = &self.shared.watch.metrics;
        let lag_ms = held
            .attributes
            .sent
            .map(|sent| now_ms().saturating_sub(sent));
        metrics.processed(kind, outcome, lag_ms);
        if finished.has_unknown && outcome != Outcome::Unrecognised {
            metrics.unrecognised_beside_changes();
        }
        tracing::debug!(
            message_id = held.message_id,
            kind = kind.as_str(),
            outcome = outcome.as_str(),
            receive_count = held.receive_count,
            lag_ms,
            trace_id = finished.trace_id.as_deref(),
            "done"
        );
        self.shared.work.acknowledger.acknowledge(held.done()).await;
    }

    /// Returns one message to the queue, which redelivers it after `delay`.
    pub(super) async fn release(&self, held: Held, delay: Duration) {
        self.leases.release(self.shared, vec![(held, delay)]).await;
    }
}
