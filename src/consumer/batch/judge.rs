//! Decides on each message after an attempt: finished, retried or refused.

use std::time::Duration;

use super::Batch;
use super::apply::Verdict;
use super::retry::retry_delay;
use super::work::Work;
use crate::clock::now_ms;
use crate::consumer::lease::Held;
use crate::message::Kind;
use crate::metrics::Outcome;
use crate::queue::Queue;
use crate::store::StoreError;

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
                let (trace_id, outcome) = (work.trace_id.as_deref(), work.done.outcome());
                self.finish(work.held, work.kind, trace_id, outcome).await;
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

    /// Acknowledges a finished message.
    pub(super) async fn finish(
        &self,
        held: Held,
        kind: Kind,
        trace_id: Option<&str>,
        outcome: Outcome,
    ) {
        let metrics = &self.shared.watch.metrics;
        let lag_ms = held
            .attributes
            .sent
            .map(|sent| now_ms().saturating_sub(sent));
        metrics.processed(kind, outcome, lag_ms);
        tracing::debug!(
            message_id = held.message_id,
            kind = kind.as_str(),
            outcome = outcome.as_str(),
            receive_count = held.receive_count,
            lag_ms,
            trace_id,
            "done"
        );
        self.shared.work.acknowledger.acknowledge(held.done()).await;
    }

    /// Returns one message to the queue, which redelivers it after `delay`.
    pub(super) async fn release(&self, held: Held, delay: Duration) {
        self.leases.release(self.shared, vec![(held, delay)]).await;
    }
}
