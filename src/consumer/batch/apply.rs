//! Sends pending steps to Redis, and removes the finished ones so that they are not sent again.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::Batch;
use super::work::Work;
use crate::consumer::lease::LEASE_CHECK_INTERVAL;
use crate::health::ConsumerView;
use crate::plan::{self, Action, Position, Step};
use crate::queue::Queue;
use crate::store::{Applied, StoreError};

/// Why a step is not finished, from the mildest reason to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unsettled {
    Failed,
    Locked,
    Unknown,
}

/// The state of a message after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Done,
    /// Redis rejected one of its steps, and a retry would fail too.
    Rejected(String),
    /// The step, or a neighbour that replaces it, must be sent again shortly.
    Again,
    /// Redis may have applied some of its steps, or may still apply them.
    Unknown,
}

impl<Q: Queue> Batch<'_, Q> {
    /// Writes the pending messages and ends the finished ones. Returns how many must be sent again shortly;
    /// `None` where Redis takes no writes or an attempt failed. Messages that are not known to be finished
    /// stay pending then.
    pub(super) async fn apply(&mut self, view: &ConsumerView) -> Option<usize> {
        let gate = self.shared.work.store.gate();
        if !gate.is_open() {
            return None;
        }
        while let Some(letter) = self.letters.pop_front() {
            if let Some(letter) = self.keep(letter, view).await {
                self.letters.push_front(letter);
                return None;
            }
        }
        if let Some(place) = self.pending.iter().position(|work| work.blamed.is_some()) {
            let work = self.pending.remove(place);
            self.refuse_blamed(work).await;
            return Some(0);
        }
        let suspect = self.pending.iter().position(|work| work.is_suspect);
        let range = suspect.map_or(0..self.pending.len(), |place| place..place + 1);
        let suspects = &self.shared.flow.suspects;
        let attempt = self.attempt(range.clone());
        // All calls share one connection: a call that breaks it makes others fail too.
        let calls = &suspects.calls;
        let attempted = if suspect.is_some() {
            let _alone = while_alive(view, calls.write()).await;
            if !gate.is_open() {
                return None;
            }
            attempt.await
        } else {
            let _beside = while_alive(view, calls.read()).await;
            if !gate.is_open() {
                return None;
            }
            attempt.await
        };
        let (fates, error) = attempted;
        if error.is_none() && !fates.is_empty() {
            suspects.succeeded();
        }
        let mut fates = fates.into_iter();
        let works: Vec<Work> = self.pending.drain(range).collect();
        let mut again = 0;
        for mut work in works {
            work.doubtful = None;
            let verdict = self.settle(&mut work, &mut fates);
            // Each refusal makes a call to the queue, which may take as long as its timeout.
            view.progress();
            again += usize::from(self.judge(work, verdict, error.as_ref()).await);
        }
        error.is_none().then_some(again)
    }

    /// Sends the steps of these messages; returns the verdict on each.
    async fn attempt(&self, range: Range<usize>) -> (Vec<Fate>, Option<StoreError>) {
        let works = &self.pending[range];
        let steps: Vec<&Step> = works.iter().flat_map(|work| &work.steps).collect();
        let superseded = match steps.len() {
            0 | 1 => Vec::new(),
            _ => plan::coalesce(&steps, self.shared.work.policy.update_if_exists),
        };
        let sent = without(&steps, &superseded);
        let sending: Vec<&Step> = sent.iter().flatten().map(AsRef::as_ref).collect();
        let blames_calls = self.shared.flow.suspects.are_few();
        let attempt = self.shared.work.store.apply(&sending, blames_calls).await;
        let fates = fates(&steps, &sent, &superseded, attempt.applied);
        (fates, attempt.error)
    }

    /// Removes the finished steps of a message, by the next of these fates.
    fn settle(&self, work: &mut Work, fates: &mut impl Iterator<Item = Fate>) -> Verdict {
        let mut verdict = Verdict::Done;
        let steps = std::mem::take(&mut work.steps);
        let mut left: HashSet<String> = HashSet::new();
        for (mut step, fate) in steps.into_iter().zip(fates) {
            if fate.unsettled.is_none() && left.contains(&step.lock) {
                // The order within an owner stays: its unfinished steps come before this one.
                work.steps.push(step);
                continue;
            }
            if let Some(applied) = &fate.applied {
                work.done.add(applied);
            }
            let Some(unsettled) = fate.unsettled else {
                let dropped = fate.superseded.len() as u64;
                self.shared.watch.metrics.coalesced.inc_by(dropped);
                continue;
            };
            match (unsettled, &verdict, fate.refused) {
                (Unsettled::Unknown, _, _) => verdict = Verdict::Unknown,
                (_, Verdict::Unknown, _) => {}
                (Unsettled::Failed, Verdict::Done | Verdict::Rejected(_), Some(reason)) => {
                    verdict = Verdict::Rejected(reason);
                }
                _ => verdict = Verdict::Again,
            }
            if fate.is_sent {
                // Its other items are finished.
                let mut position = 0;
                step.items.retain(|_| {
                    position += 1;
                    fate.superseded.contains(&(position - 1))
                });
            }
            left.insert(step.lock.clone());
            work.steps.push(step);
        }
        verdict
    }
}

/// The outcome of a step in an attempt.
#[derive(Debug, PartialEq, Eq)]
struct Fate {
    /// The final answer to the part that was sent.
    applied: Option<Applied>,
    /// Whether a part was sent and is finished.
    is_sent: bool,
    /// Why it is not finished. It may also depend on an unfinished neighbour.
    unsettled: Option<Unsettled>,
    refused: Option<String>,
    /// Its items that a neighbour replaces.
    superseded: Vec<usize>,
}

/// A superseded item is finished only when all that was sent of its owner is finished.
fn fates(
    steps: &[&Step],
    sent: &[Option<Cow<'_, Step>>],
    superseded: &[Position],
    applied: Vec<Applied>,
) -> Vec<Fate> {
    let mut applied = applied.into_iter();
    let mut of_owner: HashMap<&str, Unsettled> = HashMap::new();
    let mut not_cached: HashSet<&str> = HashSet::new();
    let mut superseded = superseded.iter().peekable();
    let mut fates = Vec::with_capacity(steps.len());
    for (position, (step, sent)) in steps.iter().zip(sent).enumerate() {
        let mut fate = Fate {
            applied: None,
            is_sent: false,
            unsettled: None,
            refused: None,
            superseded: Vec::new(),
        };
        while let Some((_, item)) = superseded.next_if(|(step, _)| *step == position) {
            fate.superseded.push(*item);
        }
        if sent.is_some() {
            match applied.next() {
                None => fate.unsettled = Some(Unsettled::Unknown),
                Some(Applied::Locked) => fate.unsettled = Some(Unsettled::Locked),
                Some(Applied::Failed(error)) if error.heals() => {
                    fate.unsettled = Some(Unsettled::Unknown);
                }
                Some(Applied::Failed(error)) => {
                    fate.unsettled = Some(Unsettled::Failed);
                    fate.refused = Some(error.to_string());
                }
                Some(answer) => {
                    if answer == Applied::NotCached {
                        not_cached.insert(&step.lock);
                    }
                    fate.applied = Some(answer);
                    fate.is_sent = true;
                }
            }
        }
        if let Some(unsettled) = fate.unsettled {
            let worst = of_owner.entry(&step.lock).or_insert(unsettled);
            *worst = unsettled.max(*worst);
        }
        fates.push(fate);
    }
    for (step, fate) in steps.iter().zip(&mut fates) {
        if fate.unsettled.is_none() && !fate.superseded.is_empty() {
            fate.unsettled = of_owner.get(step.lock.as_str()).copied();
            let is_usage = matches!(step.action, Action::UpdateUsage { .. });
            if !fate.is_sent && is_usage && not_cached.contains(step.lock.as_str()) {
                // Like the item that replaces it.
                fate.applied = Some(Applied::NotCached);
            }
        }
    }
    fates
}

/// Returns the steps to send, without superseded items; `None` where nothing is left.
fn without<'a>(steps: &[&'a Step], superseded: &[Position]) -> Vec<Option<Cow<'a, Step>>> {
    let mut superseded = superseded.iter().peekable();
    let mut sent = Vec::with_capacity(steps.len());
    for (position, step) in steps.iter().enumerate() {
        let mut dropped = Vec::new();
        while let Some((_, item)) = superseded.next_if(|(step, _)| *step == position) {
            dropped.push(*item);
        }
        let is_left = |(item, _): &(usize, &_)| !dropped.contains(item);
        sent.push(if step.items.is_empty() {
            None
        } else if dropped.is_empty() {
            Some(Cow::Borrowed(*step))
        } else if dropped.len() == step.items.len() {
            None
        } else {
            let items = step.items.iter().enumerate().filter(is_left);
            Some(Cow::Owned(Step {
                action: step.action.clone(),
                at: step.at,
                lock: step.lock.clone(),
                tombstone: step.tombstone.clone(),
                items: items.map(|(_, item)| item.clone()).collect(),
            }))
        });
    }
    sent
}

/// Waits for a resource that others hold, which does not count as a stall.
pub(super) async fn while_alive<T>(view: &ConsumerView, waiting: impl Future<Output = T>) -> T {
    let mut waiting = std::pin::pin!(waiting);
    loop {
        view.progress();
        tokio::select! {
            biased;
            done = &mut waiting => return done,
            () = tokio::time::sleep(LEASE_CHECK_INTERVAL) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{Keys, Owner};
    use crate::plan::{Condition, Item};

    fn usage(customer: &'static str, items: &[&str]) -> Step {
        let (keys, owner) = (
            Keys::new("p"),
            Owner {
                customer,
                resource: None,
            },
        );
        Step {
            action: Action::UpdateUsage {
                customer: keys.entitlements(owner),
            },
            at: 1,
            lock: keys.lock(owner),
            tombstone: keys.tombstone(owner),
            items: items
                .iter()
                .map(|feature| Item {
                    key: keys.feature_usage(owner, feature),
                    at: 1,
                    value: "{}".into(),
                    condition: Condition::NotOlder,
                })
                .collect(),
        }
    }

    const WRITTEN: Applied = Applied::Written {
        written: 1,
        stale: 0,
    };

    /// Why each step is not done, and whether what was sent of it is.
    fn settled(
        steps: &[Step],
        superseded: &[Position],
        applied: &[Applied],
    ) -> Vec<(Option<Unsettled>, bool)> {
        let steps: Vec<&Step> = steps.iter().collect();
        let sent = without(&steps, superseded);
        fates(&steps, &sent, superseded, applied.to_vec())
            .into_iter()
            .map(|fate| (fate.unsettled, fate.is_sent))
            .collect()
    }

    #[test]
    fn what_was_answered_before_an_error_is_known() {
        let steps = ["a", "b", "c"].map(|customer| usage(customer, &["f"]));
        let unknown = Some(Unsettled::Unknown);
        assert_eq!(
            settled(&steps, &[], &[WRITTEN]),
            [(None, true), (unknown, false), (unknown, false)]
        );
        let healing = Applied::Failed(StoreError::timeout());
        assert_eq!(
            settled(&steps, &[], &[WRITTEN, healing, Applied::Locked]),
            [
                (None, true),
                (unknown, false),
                (Some(Unsettled::Locked), false)
            ]
        );
    }

    #[test]
    fn what_is_superseded_is_done_when_all_that_was_sent_of_its_owner_is() {
        // All of the first, and one item of the second, are superseded by the third.
        let steps = [
            usage("a", &["f"]),
            usage("a", &["f", "g"]),
            usage("a", &["f"]),
            usage("b", &["f"]),
        ];
        let superseded = [(0, 0), (1, 0)];
        let sent = without(&steps.iter().collect::<Vec<_>>(), &superseded);
        let items = |sent: &Option<Cow<'_, Step>>| sent.as_ref().map(|step| step.items.len());
        assert_eq!(
            sent.iter().map(items).collect::<Vec<_>>(),
            [None, Some(1), Some(1), Some(1)]
        );
        let done = [(None, false), (None, true), (None, true), (None, true)];
        assert_eq!(
            settled(&steps, &superseded, &[WRITTEN, WRITTEN, Applied::NotCached]),
            done
        );
        let locked = Some(Unsettled::Locked);
        assert_eq!(
            settled(&steps, &superseded, &[WRITTEN, Applied::Locked, WRITTEN]),
            [
                (locked, false),
                (locked, true),
                (locked, false),
                (None, true)
            ]
        );
    }
}
