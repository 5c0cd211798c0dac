//! Restores with a bound that is smaller than before: what they evict, and what the restart after them does with it.

use std::path::Path;

use entitlement_sync::keys::{Keys, Owner};
use entitlement_sync::memory::{Entry, Lifetimes, Memory};
use entitlement_sync::plan::{Action, Condition, Fate, Item, Step};
use entitlement_sync::snapshot::{Folder, Secret};
use tempfile::TempDir;

use super::restart::KEY;
use testkit::events::at;

const PREFIX: &str = "production";
/// So many owners that some share a part of the store with the one that is watched.
const OTHERS: usize = 3_000;

fn owner(customer: &str) -> Owner<'_> {
    Owner {
        customer,
        resource: None,
    }
}

fn step(customer: &str, time: u64) -> Step {
    let (keys, owner) = (Keys::new(PREFIX), owner(customer));
    Step {
        action: Action::SetCustomer,
        at: at(time),
        lock: keys.lock(owner),
        tombstone: keys.tombstone(owner),
        items: vec![Item {
            key: keys.entitlements(owner),
            at: at(time),
            value: format!("{{\"time\":{time}}}"),
            condition: Condition::NotOlder,
        }],
    }
}

/// What a process with this bound holds after its start.
fn started(folder: &Path, max_bytes: u64) -> (Memory, Folder) {
    let lifetimes = Lifetimes {
        ttl_secs: None,
        tombstone_secs: 1_209_600,
    };
    let memory = Memory::new(Keys::new(PREFIX), lifetimes, max_bytes);
    let folder = Folder::open(folder, PREFIX, Secret::parse(KEY).unwrap(), None, 3).unwrap();
    folder
        .restore(|bytes| {
            let entry: Entry<'_> = serde_json::from_slice(bytes)?;
            memory.restore(entry);
            Ok(())
        })
        .unwrap();
    memory.log_to(folder.journal().clone());
    folder.journal().sync().unwrap();
    (memory, folder)
}

fn is_written(memory: &Memory, step: &Step) -> bool {
    match memory.apply(step, false) {
        Fate::Done {
            items,
            leaves_tombstone,
        } => Fate::counts(&items, leaves_tombstone).is_some_and(|(written, _)| written > 0),
        Fate::Locked | Fate::NotCached => false,
    }
}

#[test]
fn an_owner_that_a_restore_evicts_and_brings_back_is_there_after_the_next_restart() {
    let path = TempDir::new().unwrap();
    {
        let (memory, folder) = started(path.path(), u64::MAX);
        memory.apply(&step("acme", 5), false);
        for number in 0..OTHERS {
            memory.apply(&step(&format!("customer-{number}"), 6), false);
        }
        memory.apply(&step("acme", 10), false);
        folder.journal().sync().unwrap();
    }
    let value = |memory: &Memory| {
        let record = memory.record(owner("acme"))?;
        let cell = record.cell("", 0)?;
        Some(cell.value.to_string())
    };
    {
        let (memory, _folder) = started(path.path(), 1);
        assert!(memory.evictions() > 0 && memory.owners() < OTHERS);
        assert_eq!(value(&memory).as_deref(), Some("{\"time\":10}"));
    }
    let (memory, _folder) = started(path.path(), u64::MAX);
    assert_eq!(value(&memory).as_deref(), Some("{\"time\":10}"));
    assert!(!is_written(&memory, &step("acme", 7)), "it is older");
    assert!(is_written(&memory, &step("acme", 11)));
}
