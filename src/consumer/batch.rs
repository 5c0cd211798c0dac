//! The road of the messages in hand, from body to verdict. No error leaves it: every message is
//! acknowledged or given back.

mod refuse;
mod visibility;

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Shared;
use crate::health::ConsumerView;
use crate::message::{self, Invalid, Kind, StateChange};
use crate::metrics::Outcome;
use crate::plan::{self, Step};
use crate::queue::{Acknowledgement, Delivery, Queue};
use crate::store::{Applied, LOCKED_PAUSE};
use visibility::retry_delay;

/// Bytes of bodies that are planned at once; the plans weigh about as much again.
const SLICE: usize = 1 << 20;
/// Kept of the drain for what comes after the consumers: deleting, closing, reporting.
const AFTERWARDS: Duration = Duration::from_secs(2);
/// How often a message in hand is looked at while we wait.
const LOOK: Duration = Duration::from_secs(1);

/// Messages that were received together.
pub struct Batch<'a, Q> {
    shared: &'a Shared<Q>,
    /// Not begun.
    waiting: VecDeque<Delivery>,
    /// Parsed and planned, not yet in Redis.
    pending: Vec<Work>,
    release_by: Option<Instant>,
}

struct Work {
    delivery: Delivery,
    kind: Kind,
    trace_id: Option<String>,
    steps: Vec<Step>,
    locked_tries: u32,
}

enum Verdict {
    Done(Outcome),
    Locked,
    Rejected(String),
}

impl<'a, Q: Queue> Batch<'a, Q> {
    pub fn new(shared: &'a Shared<Q>, received: Vec<Delivery>) -> Self {
        shared
            .metrics
            .inflight_messages
            .inc_by(i64::try_from(received.len()).unwrap_or(0));
        Self {
            shared,
            waiting: received.into(),
            pending: Vec::new(),
            release_by: None,
        }
    }

    /// Works until nothing is in hand: acknowledged, given up, or given back at shutdown.
    pub async fn work(mut self, view: &ConsumerView) {
        loop {
            view.progress();
            self.plan(view).await;
            if self.pending.is_empty() {
                // `plan` stops short only of what is too much at once, so nothing waits either.
                return;
            }
            if self.is_overdue() {
                return self.release_all().await;
            }
            self.extend().await;
            match self.apply().await {
                Some(0) => {}
                Some(_locked) => {
                    let pause = Duration::from_millis(fastrand::u64(LOCKED_PAUSE));
                    tokio::time::sleep(pause).await;
                }
                None => {
                    if self.wait_for_redis(view).await {
                        return self.release_all().await;
                    }
                }
            }
        }
    }

    /// Parses and plans what fits; what asks for nothing or for nonsense ends here.
    async fn plan(&mut self, view: &ConsumerView) {
        let planned = |work: &[Work]| work.iter().map(|it| it.delivery.body.len()).sum::<usize>();
        while planned(&self.pending) < SLICE {
            let Some(delivery) = self.waiting.pop_front() else {
                break;
            };
            // Each refusal is a call to the queue, which may take as long as its timeout.
            view.progress();
            match self.parse(&delivery) {
                Ok((kind, trace_id, Some(steps))) => self.pending.push(Work {
                    delivery,
                    kind,
                    trace_id,
                    steps,
                    locked_tries: 0,
                }),
                Ok((kind, trace_id, None)) => {
                    self.finish(delivery, kind, trace_id.as_deref(), Outcome::Ignored)
                        .await;
                }
                Err((kind, reason)) => {
                    self.refuse(delivery, kind, Outcome::Invalid, &reason.to_string())
                        .await;
                }
            }
        }
        let mut steps: Vec<&mut Step> = self
            .pending
            .iter_mut()
            .flat_map(|work| &mut work.steps)
            .collect();
        if steps.len() > 1 {
            let dropped = plan::coalesce(&mut steps, self.shared.policy.update_if_exists);
            self.shared.metrics.coalesced.inc_by(dropped as u64);
        }
    }

    /// The kind, the trace id and the steps; no steps where nothing is to be done.
    #[expect(
        clippy::type_complexity,
        reason = "taken apart where it is called, once"
    )]
    fn parse(
        &self,
        delivery: &Delivery,
    ) -> Result<(Kind, Option<String>, Option<Vec<Step>>), (Kind, Invalid)> {
        let opened = message::open(&delivery.body, &delivery.attributes)
            .map_err(|reason| (Kind::Other, reason))?;
        let kind = opened.kind;
        if kind == Kind::Other {
            self.shared.unknown.say_once(&opened.name);
        }
        let change = opened
            .change(delivery.attributes.sent)
            .map_err(|reason| (kind, reason))?;
        let steps = match change {
            StateChange::Nothing => None,
            change => Some(plan::steps(&self.shared.keys, &change)),
        };
        let trace_id = opened.trace_id.or_else(|| delivery.trace_header.clone());
        Ok((kind, trace_id, steps))
    }

    /// Writes what is pending and ends what is done. Returns how many are locked; `None` after an
    /// error, when all of it is still pending.
    async fn apply(&mut self) -> Option<usize> {
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
        let held: HashSet<String> = steps
            .iter()
            .zip(&applied)
            .filter(|(_, applied)| **applied == Applied::Locked)
            .map(|(step, _)| step.lock.clone())
            .collect();
        let mut applied = applied.into_iter();
        let mut locked = 0;
        for mut work in std::mem::take(&mut self.pending) {
            let sent = work
                .steps
                .iter()
                .filter(|step| !step.items.is_empty())
                .count();
            let superseded = work
                .steps
                .iter()
                .filter(|step| step.items.is_empty() && held.contains(&step.lock))
                .map(|_| Applied::Locked);
            match verdict(applied.by_ref().take(sent).chain(superseded)) {
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
    async fn finish(
        &self,
        delivery: Delivery,
        kind: Kind,
        trace_id: Option<&str>,
        outcome: Outcome,
    ) {
        let metrics = &self.shared.metrics;
        metrics.inflight_messages.dec();
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

    /// Waits until Redis takes writes, keeping what is in hand. True if the process is to end
    /// first: then others shall have it.
    async fn wait_for_redis(&mut self, view: &ConsumerView) -> bool {
        loop {
            view.progress();
            tokio::select! {
                biased;
                () = self.shared.shutdown.cancelled() => return true,
                () = self.shared.store.gate().opened() => return false,
                () = tokio::time::sleep(LOOK) => self.extend().await,
            }
        }
    }

    fn is_overdue(&mut self) -> bool {
        if !self.shared.shutdown.is_cancelled() {
            return false;
        }
        let drain = self
            .shared
            .drain
            .saturating_sub(AFTERWARDS)
            .max(Duration::from_millis(500));
        *self
            .release_by
            .get_or_insert_with(|| Instant::now() + drain)
            <= Instant::now()
    }

    /// Gives everything in hand back to the queue, to be handed out at once.
    pub async fn release_all(mut self) {
        let pending = std::mem::take(&mut self.pending)
            .into_iter()
            .map(|work| work.delivery);
        let all: Vec<_> = pending
            .chain(std::mem::take(&mut self.waiting))
            .map(|delivery| (delivery, Duration::ZERO))
            .collect();
        tracing::info!(messages = all.len(), "given back to the queue at shutdown");
        for chunk in all.chunks(10) {
            self.release(chunk).await;
        }
    }
}

/// Of a message, from what became of its steps. None at all: its neighbours superseded them.
fn verdict(applied: impl Iterator<Item = Applied>) -> Verdict {
    let (mut any_written, mut any_stale, mut any_skipped, mut any_locked) =
        (false, false, false, false);
    let mut rejected = None;
    for step in applied {
        match step {
            Applied::Written { written, stale } => {
                any_written |= written > 0;
                any_stale |= stale > 0;
            }
            Applied::NotCached => any_skipped = true,
            Applied::Locked => any_locked = true,
            Applied::Failed(error) => rejected = Some(error.to_string()),
        }
    }
    match rejected {
        _ if any_locked => Verdict::Locked,
        Some(reason) => Verdict::Rejected(reason),
        None if any_written => Verdict::Done(Outcome::Applied),
        None if any_skipped && !any_stale => Verdict::Done(Outcome::Skipped),
        None => Verdict::Done(Outcome::Stale),
    }
}

fn now_ms() -> u64 {
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
