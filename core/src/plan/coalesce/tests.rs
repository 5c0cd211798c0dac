//! Holds `coalesce` against applying all steps in order, over random batches.

use std::collections::BTreeMap;

use super::*;
use crate::keys::{self, Keys, Owner};
use crate::plan::{Fate, Item, ItemFate, restrict_to_stored};

/// Random batches that both ways are compared on.
const BATCHES: u64 = 150_000;

/// What is sent of these steps.
fn sent(steps: &[Step], update_if_exists: bool) -> Vec<Step> {
    let superseded = coalesce(&steps.iter().collect::<Vec<_>>(), update_if_exists);
    let mut steps = steps.to_vec();
    for &(step, item) in superseded.iter().rev() {
        steps[step].items.remove(item);
    }
    steps
}

/// A Redis that only the script writes.
#[derive(Debug, Clone, Default, PartialEq)]
struct Stored(BTreeMap<String, String>);

impl Stored {
    fn put(&mut self, key: &str, value: impl ToString) {
        self.0.insert(key.to_owned(), value.to_string());
    }

    /// As `apply.lua` does: it reads all that decides, and then writes.
    fn apply(&mut self, step: &Step, update_if_exists: bool) {
        let fate = step.fate(update_if_exists, |key| self.0.get(key).map(String::as_str));
        let Fate::Done {
            items,
            leaves_tombstone,
        } = fate
        else {
            return;
        };
        for (item, fate) in step.items.iter().zip(items) {
            match fate {
                ItemFate::Written => {
                    self.put(&item.key, &item.value);
                    self.put(&keys::timestamp(&item.key), item.at);
                }
                ItemFate::Deleted => {
                    self.0.remove(&item.key);
                    self.0.remove(&keys::timestamp(&item.key));
                }
                _ => {}
            }
        }
        if leaves_tombstone {
            self.put(&step.tombstone, step.at);
        }
    }
}

/// Makes histories of few owners, few keys and few times, so that everything meets everything.
struct Random {
    rng: fastrand::Rng,
    keys: Keys,
    /// Makes each value unlike all others.
    made: u64,
}

impl Random {
    fn at(&mut self) -> u64 {
        if self.rng.u8(..12) == 0 {
            return 0;
        }
        self.rng.u64(1..8)
    }

    fn owner(&mut self) -> Owner<'static> {
        Owner {
            customer: ["a", "b"][self.rng.usize(..2)],
            resource: [None, None, Some("r")][self.rng.usize(..3)],
        }
    }

    fn item(&mut self, key: String, at: u64) -> Item {
        self.made += 1;
        Item {
            key,
            at,
            value: self.made.to_string(),
            condition: match self.rng.u8(..12) {
                0 => Condition::Absent,
                1 => Condition::Present,
                _ => Condition::NotOlder,
            },
        }
    }

    fn usage_key(&mut self, owner: Owner<'_>) -> String {
        match self.rng.u8(..3) {
            0 => self.keys.credit_usage(owner, "tokens"),
            1 => self.keys.feature_usage(owner, "calls"),
            _ => self.keys.feature_usage(owner, "seats"),
        }
    }

    fn step(&mut self, owner: Owner<'_>) -> Step {
        let at = self.at();
        let customer = self.keys.entitlements(owner);
        let metadata = self.keys.metadata(owner);
        let (action, items) = match self.rng.u8(..10) {
            0 => {
                let items = [customer, metadata].map(|key| Item {
                    condition: Condition::NotOlder,
                    ..self.item(key, at)
                });
                (Action::Purge, items.into())
            }
            1..=4 => {
                let mut items = [customer, metadata].map(|key| self.item(key, at)).to_vec();
                for feature in ["calls", "seats"] {
                    if self.rng.bool() {
                        let key = self.keys.feature_usage(owner, feature);
                        let at = if self.rng.bool() { at } else { self.at() };
                        items.push(self.item(key, at));
                    }
                }
                (Action::SetCustomer, items)
            }
            _ => {
                let key = self.usage_key(owner);
                (Action::UpdateUsage { customer }, vec![self.item(key, at)])
            }
        };
        let mut step = Step {
            action,
            at,
            lock: self.keys.lock(owner),
            tombstone: self.keys.tombstone(owner),
            items,
        };
        if self.rng.u8(..16) == 0 {
            restrict_to_stored(std::slice::from_mut(&mut step));
        }
        step
    }

    fn stored(&mut self) -> Stored {
        let mut stored = Stored::default();
        for _ in 0..self.rng.usize(..5) {
            let owner = self.owner();
            let at = self.at();
            let key = match self.rng.u8(..4) {
                0 => {
                    stored.put(&self.keys.tombstone(owner), at.max(1));
                    continue;
                }
                1 => self.usage_key(owner),
                _ => self.keys.entitlements(owner),
            };
            stored.put(&keys::timestamp(&key), at);
            stored.put(&key, "stored");
        }
        stored
    }
}

#[test]
fn what_is_left_does_what_all_in_order_do() {
    let mut random = Random {
        rng: fastrand::Rng::with_seed(11),
        keys: Keys::new("p"),
        made: 0,
    };
    let (mut dropped, mut wrong) = (0, Vec::new());
    for batch in 0..BATCHES {
        let before = random.stored();
        let update_if_exists = random.rng.u8(..4) == 0;
        let one_owner = random.rng.bool().then(|| random.owner());
        let steps: Vec<Step> = (0..random.rng.usize(2..11))
            .map(|_| {
                let owner = one_owner.unwrap_or_else(|| random.owner());
                random.step(owner)
            })
            .collect();
        let sent = sent(&steps, update_if_exists);
        let (mut all, mut some) = (before.clone(), before.clone());
        for step in &steps {
            all.apply(step, update_if_exists);
        }
        for step in sent.iter().filter(|step| !step.items.is_empty()) {
            some.apply(step, update_if_exists);
        }
        let items = |steps: &[Step]| steps.iter().map(|step| step.items.len()).sum::<usize>();
        dropped += items(&steps) - items(&sent);
        if all != some {
            wrong.push((batch, before, steps, all, some));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {BATCHES} differ; the first: {:#?}",
        wrong.len(),
        wrong.first()
    );
    // Else the test would hold of a `coalesce` that does nothing.
    assert!(dropped > BATCHES as usize / 2, "{dropped} items dropped");
}

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

fn set(items: &[(&str, u64)]) -> Step {
    step(Action::SetCustomer, items)
}

fn usage(key: &str, at: u64) -> Step {
    let customer = "p:c_a".into();
    step(Action::UpdateUsage { customer }, &[(key, at)])
}

/// The times of the items that are left of each step.
fn left(steps: &[Step], update_if_exists: bool) -> Vec<Vec<u64>> {
    let times = |step: &Step| step.items.iter().map(|item| item.at).collect();
    sent(steps, update_if_exists).iter().map(times).collect()
}

#[test]
fn the_newest_usage_of_a_key_is_written_once() {
    let steps = [usage("f", 3), usage("g", 1), usage("f", 5), usage("f", 4)];
    assert_eq!(left(&steps, false), [vec![], vec![1], vec![5], vec![]]);
}

#[test]
fn of_equal_times_the_later_wins() {
    let steps = [usage("f", 3), usage("f", 3)];
    assert_eq!(left(&steps, false), [vec![], vec![3]]);
}

#[test]
fn steps_of_other_owners_are_compared_with_nothing_and_part_nothing() {
    let of_another = |mut step: Step| {
        step.lock = "p-b".into();
        step
    };
    let purge = of_another(step(Action::Purge, &[("b", 9)]));
    assert_eq!(
        left(&[usage("f", 3), purge, usage("f", 5)], false),
        [vec![], vec![9], vec![5]]
    );
    let alone = of_another(usage("f", 4));
    assert_eq!(left(&[usage("f", 3), alone], false), [vec![3], vec![4]]);
}

#[test]
fn only_the_keys_that_a_later_customer_sets_too_are_dropped() {
    let steps = [
        set(&[("c", 1), ("f", 9), ("g", 1)]),
        set(&[("c", 2), ("f", 2)]),
    ];
    assert_eq!(left(&steps, false), [vec![9, 1], vec![2]]);
    assert_eq!(left(&steps, true), [vec![1, 9, 1], vec![2, 2]]);
}

#[test]
fn a_usage_is_not_dropped_in_favour_of_a_step_that_a_tombstone_may_refuse() {
    let set = |at, usage| {
        let mut set = set(&[("c", at), ("f", usage)]);
        set.at = at;
        set
    };
    assert_eq!(
        left(&[set(20, 5), set(10, 7)], false),
        [vec![20, 5], vec![7]]
    );
    assert_eq!(
        left(&[set(10, 7), set(20, 5)], false),
        [vec![7], vec![20, 5]]
    );
    assert_eq!(
        left(&[set(20, 7), set(10, 5)], false),
        [vec![20, 7], vec![]]
    );
}

/// The customer's key decides whether usage is written at all.
#[test]
fn a_set_that_a_usage_relies_on_is_final() {
    let steps = [set(&[("c", 1)]), usage("f", 2), set(&[("c", 3)])];
    assert_eq!(left(&steps, false), [[1], [2], [3]]);
    let purge = step(Action::Purge, &[("c", 1)]);
    let steps = [purge, set(&[("c", 2)]), usage("f", 5), set(&[("c", 3)])];
    assert_eq!(left(&steps, false), [[1], [2], [5], [3]]);
}

#[test]
fn nothing_is_dropped_across_a_purge_or_an_unknown_time_or_another_kind() {
    for parts in [step(Action::Purge, &[("c", 4)]), set(&[("f", 4)])] {
        let steps = [usage("f", 3), parts, usage("f", 5)];
        assert_eq!(left(&steps, false), [[3], [4], [5]]);
    }
    for times in [[0, 0, 0], [3, 0, 4], [4, 0, 3]] {
        let steps = times.map(|at| usage("f", at));
        assert_eq!(left(&steps, false), times.map(|at| [at]));
    }
}

#[test]
fn an_item_with_a_condition_neither_supersedes_nor_is_superseded() {
    for condition in [Condition::Absent, Condition::Present] {
        let mut steps = [3, 4, 5, 6].map(|at| usage("f", at));
        steps[1].items[0].condition = condition;
        assert_eq!(left(&steps, false), [vec![3], vec![4], vec![], vec![6]]);
    }
}
