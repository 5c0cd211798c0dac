//! Finds the values of a batch that a neighbour supersedes, so that Redis is written once.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use super::{Action, Condition, Item, Step};

/// The position of an item: that of its step in the batch, and its own in the step.
pub type Position = (usize, usize);

/// Returns the items that need not be sent, in order. The remaining items leave Redis in the state that all steps
/// in order would.
///
/// Only items within a *run* are compared: neighbouring steps of one owner that all set it, or that
/// all update its usage. What one step of a run writes decides nothing about the others but the
/// times of the keys that both write: a purge, and a change from setting to usage or back, ends the
/// run. With `update_if_exists` a set depends on what earlier ones wrote, so sets have no runs.
pub fn coalesce(steps: &[&Step], update_if_exists: bool) -> Vec<Position> {
    let mut of_owner: HashMap<&str, Vec<usize>> = HashMap::with_capacity(steps.len());
    for (position, step) in steps.iter().enumerate() {
        of_owner.entry(&step.lock).or_default().push(position);
    }
    let mut superseded = Vec::new();
    if of_owner.len() == steps.len() {
        return superseded;
    }
    let run_of = |position: &usize| kind_of_run(&steps[*position].action, update_if_exists);
    for positions in of_owner.values() {
        for run in positions.chunk_by(|one, next| run_of(one) == run_of(next)) {
            if run.len() > 1 && run_of(&run[0]).is_some() {
                within_run(steps, run, &mut superseded);
            }
        }
    }
    superseded.sort_unstable();
    superseded
}

fn kind_of_run(action: &Action, update_if_exists: bool) -> Option<Discriminant<Action>> {
    match action {
        Action::Purge => None,
        Action::SetCustomer if update_if_exists => None,
        Action::SetCustomer | Action::UpdateUsage { .. } => Some(discriminant(action)),
    }
}

/// Of two items of one key the newer supersedes the older, and of equal ones the later, as in Redis.
///
/// A step older than the tombstone is not written at all. So an item is superseded only by one whose
/// step is written wherever its own is.
fn within_run(steps: &[&Step], run: &[usize], superseded: &mut Vec<Position>) {
    let mut newest: HashMap<&str, Position> = HashMap::new();
    for &at_step in run {
        let step = steps[at_step];
        for (at_item, item) in step.items.iter().enumerate() {
            if !is_ordered_by_time(item) {
                newest.remove(item.key.as_str());
                continue;
            }
            let here = (at_step, at_item);
            let Some(before) = newest.get_mut(item.key.as_str()) else {
                newest.insert(&item.key, here);
                continue;
            };
            let earlier = steps[before.0];
            if earlier.items[before.1].at <= item.at {
                if passes_where(step.at, earlier.at) {
                    superseded.push(*before);
                }
                *before = here;
            } else if passes_where(earlier.at, step.at) {
                superseded.push(here);
            }
        }
    }
}

/// Returns whether only its time decides if an item is written. An item of unknown time (0) is always written, and
/// resets the stored time; an item with a condition depends on the stored state. So no item of its key is
/// superseded across it.
fn is_ordered_by_time(item: &Item) -> bool {
    item.at > 0 && item.condition == Condition::NotOlder
}

/// Returns whether a step of time `at` is written whenever one of time `other` is; 0 is never stale.
fn passes_where(at: u64, other: u64) -> bool {
    at == 0 || (other > 0 && at >= other)
}

#[cfg(test)]
mod tests;
