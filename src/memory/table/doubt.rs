//! Which owners are doubted since a restore that was incomplete, and what confirms them.

use super::{Table, suffix_of};
use crate::message::Millis;
use crate::plan::{ItemFate, Step};

impl Table {
    /// Doubts all owners, and those that are created from now on.
    pub fn doubt(&mut self, at: Millis) {
        self.doubted_at = at;
        for record in self.owners.values_mut() {
            record.doubted_at = at;
        }
    }

    pub fn confirm(&mut self, owner: &str) {
        if let Some(record) = self.owners.get_mut(owner) {
            record.doubted_at = 0;
        }
    }

    pub fn doubted(&self) -> usize {
        let records = self.owners.values();
        records.filter(|record| record.is_doubted()).count()
    }
}

/// Returns whether a step confirms an owner that is doubted since `doubted_at`: it brings all its entitlements, and is newer
/// than all that may be missing. A message that was sent before the damage is not.
pub fn confirms(owner: &str, step: &Step, fates: &[ItemFate], doubted_at: Millis) -> bool {
    let mut items = step.items.iter().zip(fates);
    items.any(|(item, fate)| {
        matches!(fate, ItemFate::Written)
            && suffix_of(owner, &item.key).is_empty()
            && item.at > doubted_at
    })
}

#[cfg(test)]
mod tests {
    use super::super::{CellEntry, Lifetimes, OwnerEntry};
    use super::*;
    use crate::keys::{Keys, Owner};
    use crate::plan::{Action, Condition, Item};

    const DAMAGE: Millis = 100;
    const LIFETIMES: Lifetimes = Lifetimes {
        ttl_secs: None,
        tombstone_secs: 1,
    };

    fn owner() -> String {
        Keys::new("p").entitlements(acme())
    }

    fn acme() -> Owner<'static> {
        Owner {
            customer: "acme",
            resource: None,
        }
    }

    fn step(action: Action, key: String, at: Millis) -> Step {
        Step {
            action,
            at,
            lock: String::new(),
            tombstone: Keys::new("p").tombstone(acme()),
            items: vec![Item {
                key,
                at,
                value: "{}".to_owned(),
                condition: Condition::NotOlder,
            }],
        }
    }

    fn set(at: Millis) -> Step {
        step(Action::SetCustomer, owner(), at)
    }

    fn usage(at: Millis) -> Step {
        let key = Keys::new("p").feature_usage(acme(), "seats");
        step(Action::UpdateUsage { customer: owner() }, key, at)
    }

    fn doubted() -> Table {
        let mut table = Table::new();
        table.restore(OwnerEntry {
            owner: owner().into(),
            tombstone: None,
            changed: 1,
            doubted_at: 0,
            cells: vec![CellEntry {
                suffix: "".into(),
                value: "{}".into(),
                at: 1,
                expires: Millis::MAX,
            }],
        });
        table.doubt(DAMAGE);
        assert_eq!(table.doubted(), 1);
        table
    }

    #[test]
    fn only_entitlements_that_are_newer_than_the_damage_confirm_an_owner() {
        for (steps, left) in [
            (vec![usage(200)], 1),
            (vec![set(50)], 1),
            (vec![set(200)], 0),
            (vec![set(0)], 1),
        ] {
            let mut table = doubted();
            for step in &steps {
                table.apply(step, false, LIFETIMES, 250);
            }
            assert_eq!(table.doubted(), left, "{steps:?}");
        }
        let mut table = doubted();
        table.confirm(&owner());
        assert_eq!(table.doubted(), 0);
    }

    #[test]
    fn an_owner_that_is_missing_is_doubted_when_an_older_message_brings_it() {
        for (at, left) in [(50, 1), (200, 0)] {
            let mut table = Table::new();
            table.doubt(DAMAGE);
            table.apply(&set(at), false, LIFETIMES, 250);
            assert_eq!(table.doubted(), left, "{at}");
        }
    }

    #[test]
    fn a_snapshot_keeps_the_doubt() {
        let table = doubted();
        let mut restored = Table::new();
        restored.restore(table.entry(&owner(), 250).unwrap());
        assert_eq!(restored.doubted(), 1);
        restored.apply(&set(200), false, LIFETIMES, 250);
        assert_eq!(restored.doubted(), 0);
    }
}
