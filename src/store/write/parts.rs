//! Divides steps into calls that hold other clients of Redis up for a short time only.

use super::Applied;
use crate::keys;
use crate::plan::{Action, Item, Step};

/// Maximum arguments and bytes of one call: Redis serves no other client while it runs, for about 1 us an argument and
/// 1 us a kB where it holds the keys, and three times as long where they are new and its table of keys grows.
const MAX_ARGUMENTS: usize = 256;
const MAX_BYTES: usize = 1 << 18;

/// A step, or the part of one that a call has room for.
#[derive(Clone, Copy)]
pub struct Part<'a> {
    pub step: &'a Step,
    pub items: &'a [Item],
    /// Whether this is the first part of the step.
    begins: bool,
}

impl<'a> Part<'a> {
    pub fn whole(step: &'a Step) -> Self {
        Self {
            step,
            items: &step.items,
            begins: true,
        }
    }

    /// The last items, as many as fit into one call, and the items before them.
    fn split(self) -> (Self, Option<Self>) {
        let (mut arguments, mut bytes) = (OF_STEP, of_guards(self.step));
        let fit = self.items.iter().rev().take_while(|item| {
            arguments += OF_ITEM;
            bytes += of_item(item);
            arguments <= MAX_ARGUMENTS && bytes <= MAX_BYTES
        });
        let before = self.items.len().saturating_sub(fit.count().max(1));
        let (before, last) = self.items.split_at(before);
        let part = |items, begins| Self {
            items,
            begins,
            ..self
        };
        let before = (!before.is_empty()).then(|| part(before, false));
        (part(last, self.begins), before)
    }

    fn arguments(&self) -> usize {
        OF_STEP + OF_ITEM * self.items.len()
    }

    /// Returns the bytes of keys and values. Each key contains an id, so keys may be larger than all values.
    fn bytes(&self) -> usize {
        of_guards(self.step) + self.items.iter().map(of_item).sum::<usize>()
    }
}

/// The arguments of a step without its items, and of each item.
const OF_STEP: usize = 6;
const OF_ITEM: usize = 4;

fn of_guards(step: &Step) -> usize {
    2 * step.lock.len() + step.tombstone.len()
}

fn of_item(item: &Item) -> usize {
    2 * item.key.len() + keys::TIMESTAMP.len() + item.value.len()
}

/// Divides the steps that are larger than one call may be. Each item is compared with what is stored of it, and the guards
/// of the step with each part, so that the parts do what the step would do. The first items, which are the entitlements, are in
/// the last part: a reader that finds them finds their usage too. Three kinds stay whole: a purge, whose
/// tombstone goes with what it deletes; state without a time, of which the last whole one counts; and with
/// `UPDATE_IF_EXISTS` any step, since one stored item decides about all.
pub fn parts_of<'a>(steps: &[&'a Step], update_if_exists: bool) -> Vec<Part<'a>> {
    let mut parts = Vec::with_capacity(steps.len());
    for step in steps {
        let mut rest = Some(Part::whole(step));
        let stays_whole = update_if_exists || step.at == 0 || matches!(step.action, Action::Purge);
        while let Some(part) = rest {
            let (last, before) = match stays_whole {
                true => (part, None),
                false => part.split(),
            };
            parts.push(last);
            rest = before;
        }
    }
    parts
}

/// Returns how many of the first parts fit into one call; at least one.
pub fn fitting(parts: &[Part<'_>]) -> usize {
    let (mut arguments, mut bytes) = (0, 0);
    parts
        .iter()
        .take_while(|part| {
            let first = arguments == 0;
            arguments += part.arguments();
            bytes += part.bytes();
            first || (arguments <= MAX_ARGUMENTS && bytes <= MAX_BYTES)
        })
        .count()
}

/// Returns the weight of a call: its arguments, and one more for each 256 bytes.
pub fn weight(parts: &[Part<'_>]) -> u32 {
    let weights = parts.iter().map(|it| it.arguments() + it.bytes() / 256);
    u32::try_from(weights.sum::<usize>()).unwrap_or(u32::MAX)
}

/// Returns the outcomes of the steps from those of the first parts; not of a step of which a part has none.
pub fn joined(parts: &[Part<'_>], outcomes: Vec<Applied>) -> Vec<Applied> {
    let is_divided = parts
        .get(outcomes.len())
        .is_some_and(|unanswered| !unanswered.begins);
    let mut steps: Vec<Applied> = Vec::with_capacity(outcomes.len());
    for (part, outcome) in parts.iter().zip(outcomes) {
        match steps.last_mut() {
            Some(before) if !part.begins => *before = both(before.clone(), outcome),
            _ => steps.push(outcome),
        }
    }
    if is_divided {
        steps.pop();
    }
    steps
}

/// The outcome of a step with these outcomes of its parts: the step is tried again whole if a part is.
fn both(one: Applied, other: Applied) -> Applied {
    use Applied::{Expired, Failed, Locked, NotCached, Written};
    match (one, other) {
        (
            Written { written, stale },
            Written {
                written: more,
                stale: older,
            },
        ) => Written {
            written: written + more,
            stale: stale + older,
        },
        (failed @ Failed(_), _) | (_, failed @ Failed(_)) => failed,
        (Locked, _) | (_, Locked) => Locked,
        (NotCached, _) | (_, NotCached) => NotCached,
        (Expired, other) | (other, Expired) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Condition;
    use crate::store::StoreError;

    fn step(id: usize, items: usize) -> Step {
        let key = "k".repeat(id);
        let item = Item {
            key: key.clone(),
            at: 1,
            value: "{}".into(),
            condition: Condition::default(),
        };
        Step {
            action: Action::SetCustomer,
            at: 1,
            lock: key.clone(),
            tombstone: key,
            items: vec![item; items],
        }
    }

    fn items_of(step: &Step, update_if_exists: bool) -> Vec<usize> {
        let parts = parts_of(&[step], update_if_exists);
        parts.iter().map(|part| part.items.len()).collect()
    }

    #[test]
    fn a_call_has_at_most_256_arguments() {
        let step = step(10, 20);
        let parts = parts_of(&[&step; 9], false);
        assert_eq!(parts.len(), 9);
        assert_eq!(parts[0].arguments(), 86);
        assert_eq!(fitting(&parts), 2);
    }

    #[test]
    fn keys_count_in_the_size_of_a_call() {
        let (short, long) = (step(10, 4), step(5_000, 4));
        let (short, long) = ([Part::whole(&short); 9], [Part::whole(&long); 9]);
        assert_eq!(fitting(&short), 9);
        // 55 kB of keys each.
        assert_eq!(fitting(&long), 4);
        assert!(weight(&long[..1]) > weight(&short[..1]) + 150);
    }

    #[test]
    fn a_step_beyond_the_bounds_is_divided() {
        assert_eq!(items_of(&step(10, 62), false), [62]);
        assert_eq!(items_of(&step(10, 63), false), [62, 1]);
        assert_eq!(items_of(&step(10, 200), false), [62, 62, 62, 14]);
        // 10 kB of keys each.
        assert_eq!(items_of(&step(5_000, 60), false), [24, 24, 12]);
        // One that is larger than a call, and none.
        assert_eq!(items_of(&step(200_000, 2), false), [1, 1]);
        assert_eq!(items_of(&step(10, 0), false), [0]);
        // The entitlements come last.
        let mut large = step(10, 100);
        large.items[0].at = 7;
        let parts = parts_of(&[&large], false);
        let of = |part: &Part<'_>| part.items.iter().any(|item| item.at == 7);
        assert_eq!(parts.iter().map(of).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn what_only_a_whole_step_can_decide_stays_whole() {
        let large = step(10, 300);
        assert_eq!(items_of(&large, true), [300]);
        let undated = Step {
            at: 0,
            ..large.clone()
        };
        assert_eq!(items_of(&undated, false), [300]);
        let purge = Step {
            action: Action::Purge,
            ..large
        };
        assert_eq!(items_of(&purge, false), [300]);
        // Whole, it goes alone.
        let (short, purge) = (step(10, 1), Part::whole(&purge));
        let short = Part::whole(&short);
        assert_eq!(fitting(&[purge, short]), 1);
        assert_eq!(fitting(&[short, purge]), 1);
    }

    #[test]
    fn the_outcome_of_a_step_is_that_of_its_parts() {
        let (small, large) = (step(10, 1), step(10, 100));
        let parts = parts_of(&[&small, &large, &small], false);
        assert_eq!(parts.len(), 4);
        let done = |written, stale| Applied::Written { written, stale };
        let of = |outcomes: &[Applied]| joined(&parts, outcomes.to_vec());
        assert_eq!(
            of(&[done(1, 0), done(60, 2), done(20, 18), done(0, 1)]),
            [done(1, 0), done(80, 20), done(0, 1)]
        );
        // Nothing is known of a step of which a part has no outcome.
        assert_eq!(of(&[done(1, 0), done(62, 0)]), [done(1, 0)]);
        assert_eq!(of(&[done(1, 0)]), [done(1, 0)]);
        assert_eq!(of(&[]), []);
        let failed = Applied::Failed(StoreError::protocol());
        for (one, other, both) in [
            (Applied::Locked, done(1, 0), Applied::Locked),
            (done(1, 0), Applied::Locked, Applied::Locked),
            (failed.clone(), Applied::Locked, failed.clone()),
            (done(1, 0), failed.clone(), failed),
            (Applied::Expired, done(1, 2), done(1, 2)),
            (Applied::Expired, Applied::Expired, Applied::Expired),
        ] {
            let outcomes = [done(1, 0), one, other];
            assert_eq!(of(&outcomes), [done(1, 0), both], "{outcomes:?}");
        }
    }
}
