//! Within a batch, what a neighbour makes pointless is not written at all.

use std::collections::HashMap;

use super::{Action, Condition, Step};

/// Drops every item that another item of the same kind and key supersedes, so that Redis is written
/// once, and returns how many. What remains leaves Redis exactly as all of them in order would.
///
/// A step older than the tombstone is not written at all, so an item is only dropped in favour of one
/// whose step is at least as new.
///
/// Not dropped: anything across a purge of the same owner or an item of unknown time (0: always
/// written), anything of `setCustomer` where it may depend on what is stored (`update_if_exists`),
/// and a usage in favour of an earlier one, as that may have been skipped for want of a customer
/// that is cached by now.
pub fn coalesce(steps: &mut [&mut Step], update_if_exists: bool) -> usize {
    let mut superseded: Vec<(usize, usize)> = Vec::new();
    let mut newest: HashMap<(&str, bool), (usize, usize)> = HashMap::new();
    // No two owners share a key, and most have but one step.
    let mut of_owner: HashMap<&str, u32> = HashMap::with_capacity(steps.len());
    for step in steps.iter() {
        *of_owner.entry(&step.lock).or_default() += 1;
    }
    if of_owner.len() == steps.len() {
        return 0;
    }
    for (at_step, step) in steps.iter().enumerate() {
        if of_owner.get(step.lock.as_str()) == Some(&1) {
            continue;
        }
        let sets = match step.action {
            Action::Purge => {
                newest.clear();
                continue;
            }
            Action::SetCustomer if update_if_exists => continue,
            Action::SetCustomer => true,
            Action::UpdateUsage { .. } => false,
        };
        for (at_item, item) in step.items.iter().enumerate() {
            if item.at == 0 || item.condition != Condition::NotOlder {
                newest.clear();
                continue;
            }
            let here = (at_step, at_item);
            let other = newest.entry((&item.key, sets)).or_insert(here);
            if *other == here {
                continue;
            }
            let earlier = &steps[other.0];
            // As in Redis: of two equal ones the later wins.
            if earlier.items[other.1].at <= item.at {
                if passes_where(step.at, earlier.at) {
                    superseded.push(*other);
                }
                *other = here;
            } else if sets && passes_where(earlier.at, step.at) {
                superseded.push(here);
            }
        }
    }
    drop((newest, of_owner));
    superseded.sort_unstable();
    for &(step, item) in superseded.iter().rev() {
        steps[step].items.remove(item);
    }
    superseded.len()
}

/// Whether a step of time `at` is written wherever one of time `other` is; 0 is never stale.
fn passes_where(at: u64, other: u64) -> bool {
    at == 0 || (other > 0 && at >= other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Item;

    fn step(action: Action, items: &[(&str, u64)]) -> Step {
        Step {
            action,
            at: 1,
            lock: "p-a".into(),
            tombstone: "p:c_a#purged".into(),
            items: items
                .iter()
                .map(|&(key, at)| Item {
                    key: key.into(),
                    at,
                    value: at.to_string(),
                    condition: Condition::NotOlder,
                })
                .collect(),
        }
    }

    fn usage(key: &str, at: u64) -> Step {
        let customer = "p:c_a".into();
        step(Action::UpdateUsage { customer }, &[(key, at)])
    }

    fn left(mut steps: Vec<Step>, update_if_exists: bool) -> Vec<Vec<u64>> {
        coalesce(&mut steps.iter_mut().collect::<Vec<_>>(), update_if_exists);
        let times = |step: &Step| step.items.iter().map(|item| item.at).collect();
        steps.iter().map(times).collect()
    }

    #[test]
    fn an_owner_with_one_step_is_nobody_elses_business() {
        let of_another = |mut step: Step| {
            step.lock = "p-b".into();
            step
        };
        let purge = of_another(step(Action::Purge, &[("b", 9)]));
        assert_eq!(
            left(vec![usage("f", 3), purge, usage("f", 5)], false),
            [vec![], vec![9], vec![5]]
        );
        let alone = of_another(usage("g", 4));
        assert_eq!(left(vec![usage("f", 3), alone], false), [vec![3], vec![4]]);
    }

    #[test]
    fn the_newest_usage_of_a_key_is_written_once() {
        let steps = vec![usage("f", 3), usage("g", 1), usage("f", 5), usage("f", 4)];
        assert_eq!(left(steps, false), [vec![], vec![1], vec![5], vec![4]]);
    }

    #[test]
    fn of_equal_times_the_later_wins() {
        assert_eq!(
            left(vec![usage("f", 3), usage("f", 3)], false),
            [vec![], vec![3]]
        );
    }

    #[test]
    fn only_the_keys_that_a_later_customer_sets_too_are_dropped() {
        let steps = || {
            vec![
                step(Action::SetCustomer, &[("c", 1), ("f", 9), ("g", 1)]),
                step(Action::SetCustomer, &[("c", 2), ("f", 2)]),
            ]
        };
        assert_eq!(left(steps(), false), [vec![9, 1], vec![2]]);
        assert_eq!(left(steps(), true), [vec![1, 9, 1], vec![2, 2]]);
    }

    #[test]
    fn a_usage_is_not_dropped_in_favour_of_a_step_that_a_tombstone_may_refuse() {
        let set = |at, usage| {
            let mut set = step(Action::SetCustomer, &[("c", at), ("f", usage)]);
            set.at = at;
            set
        };
        assert_eq!(
            left(vec![set(20, 5), set(10, 7)], false),
            [vec![20, 5], vec![7]]
        );
        assert_eq!(
            left(vec![set(10, 7), set(20, 5)], false),
            [vec![7], vec![20, 5]]
        );
        assert_eq!(
            left(vec![set(20, 7), set(10, 5)], false),
            [vec![20, 7], vec![]]
        );
    }

    #[test]
    fn nothing_is_dropped_across_a_purge_or_of_unknown_time_or_of_another_kind() {
        let purge = step(Action::Purge, &[("c", 4)]);
        assert_eq!(
            left(vec![usage("f", 3), purge, usage("f", 5)], false),
            [vec![3], vec![4], vec![5]]
        );
        assert_eq!(
            left(vec![usage("f", 0), usage("f", 0)], false),
            [vec![0], vec![0]]
        );
        assert_eq!(
            left(vec![usage("f", 3), usage("f", 0), usage("f", 4)], false),
            [vec![3], vec![0], vec![4]]
        );
        let set = step(Action::SetCustomer, &[("f", 3)]);
        assert_eq!(left(vec![set, usage("f", 5)], false), [vec![3], vec![5]]);
    }
}
