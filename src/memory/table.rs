//! One part of the in-process store: owners and their values, changed by the write rule. Pure: the caller gives the time.

mod doubt;
mod floors;
mod lifetimes;
mod record;

pub use floors::hash;
pub use lifetimes::Lifetimes;
pub use record::{Cell, Record};

use indexmap::IndexMap;

use super::entry::{CellEntry, OwnerEntry, StepEntry};
use crate::keys;
use crate::message::Millis;
use crate::plan::{Action, Fate, Guards, Held, ItemFate, Step};
use floors::Floors;
use record::Tombstone;

/// The values of a share of the owners.
#[derive(Debug)]
pub struct Table {
    owners: IndexMap<Box<str>, Record>,
    floors: Floors,
    /// Owners that are created are doubted since then; 0: they are certain.
    doubted_at: Millis,
    bytes: u64,
    /// Counts uses, so that the least recently used owner is known.
    clock: u64,
    /// The place where [`sweep`](Self::sweep) goes on.
    swept: usize,
}

/// What came of a step.
#[derive(Debug)]
pub struct Applied {
    pub fate: Fate,
    /// By item: whether it changed. One that was written again as it is did not.
    pub changed: Vec<bool>,
}

/// Owners that are copied under one lock: questions about owners of the same part wait meanwhile.
const ENTRIES_AT_ONCE: usize = 32;
/// How many owners are compared to find one that was not used lately.
const SAMPLE: usize = 8;

impl Table {
    pub fn new() -> Self {
        Self {
            owners: IndexMap::new(),
            floors: Floors::default(),
            doubted_at: 0,
            bytes: 0,
            clock: 0,
            swept: 0,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Applies a step by the write rule.
    pub fn apply(
        &mut self,
        step: &Step,
        update_if_exists: bool,
        lifetimes: Lifetimes,
        now: Millis,
    ) -> Applied {
        let owner = owner_of(step);
        let fate = step.decide(update_if_exists, &self.guards(owner, step, now));
        let mut changed = vec![false; step.items.len()];
        let Fate::Done {
            items,
            leaves_tombstone,
        } = &fate
        else {
            return Applied { fate, changed };
        };
        let changes = |it: &ItemFate| matches!(it, ItemFate::Written | ItemFate::Deleted);
        if *leaves_tombstone || items.iter().any(changes) {
            self.change(owner, now, lifetimes, |record| {
                for ((item, fate), changed) in step.items.iter().zip(items).zip(&mut changed) {
                    let suffix = suffix_of(owner, &item.key);
                    match fate {
                        ItemFate::Written => *changed = record.write(suffix, item, now, lifetimes),
                        ItemFate::Deleted => {
                            record.cells.retain(|cell| &*cell.suffix != suffix);
                            *changed = true;
                        }
                        ItemFate::Stale | ItemFate::Purged | ItemFate::Kept | ItemFate::Expired => {
                        }
                    }
                }
                if doubt::confirms(owner, step, items, record.doubted_at) {
                    record.doubted_at = 0;
                }
                if *leaves_tombstone {
                    record.tombstone = Some(Tombstone {
                        at: step.at,
                        expires: lifetimes.of_tombstones(now),
                    });
                }
            });
        }
        Applied { fate, changed }
    }

    fn guards(&self, owner: &str, step: &Step, now: Millis) -> Guards {
        let record = self.owners.get(owner);
        let held = |suffix: &str| {
            let cell = record.and_then(|record| record.cell(suffix, now));
            Held {
                has_timestamp: cell.is_some(),
                at: cell.map(|cell| cell.at as f64),
                has_value: cell.is_some(),
            }
        };
        let tombstone = match record {
            Some(record) => record.tombstone(now).map(|(at, _)| at),
            None => self.floors.of(owner),
        };
        Guards {
            // SDKs lock keys in Redis; this store has no other writers.
            is_locked: false,
            tombstone: tombstone.map(|at| at as f64),
            has_customer: match &step.action {
                Action::UpdateUsage { customer } => held(suffix_of(owner, customer)).has_timestamp,
                Action::SetCustomer | Action::Purge => false,
            },
            items: step
                .items
                .iter()
                .map(|item| held(suffix_of(owner, &item.key)))
                .collect(),
        }
    }

    /// Changes a record, which is created if it is not there and removed if nothing is left in it.
    fn change(
        &mut self,
        owner: &str,
        now: Millis,
        lifetimes: Lifetimes,
        change: impl FnOnce(&mut Record),
    ) {
        self.clock += 1;
        let before = self.owners.get(owner).map_or(0, |it| it.bytes(owner));
        let (floor, doubted_at) = (self.floors.of(owner), self.doubted_at);
        let record = self.owners.entry(owner.into()).or_insert_with(|| Record {
            doubted_at,
            ..Record::new(floor, lifetimes.of_tombstones(now))
        });
        change(record);
        record.changed = now;
        record.used = self.clock;
        let after = record.bytes(owner);
        self.bytes = self.bytes + after - before;
        if record.is_empty() {
            self.owners.swap_remove(owner);
            self.bytes -= after;
        }
    }

    /// Removes the expired values of an owner; returns whether there were any.
    pub fn expire(&mut self, owner: &str, now: Millis) -> bool {
        let Some((place, _, record)) = self.owners.get_full_mut(owner) else {
            return false;
        };
        let before = record.bytes(owner);
        if !record.drop_expired(now) {
            return false;
        }
        self.bytes = self.bytes + record.bytes(owner) - before;
        if record.is_empty() {
            self.bytes -= record.bytes(owner);
            self.owners.swap_remove_index(place);
        }
        true
    }

    /// Returns the record of an owner, and counts it as used.
    pub fn read(&mut self, owner: &str) -> Option<&Record> {
        self.clock += 1;
        let record = self.owners.get_mut(owner)?;
        record.used = self.clock;
        Some(record)
    }

    /// Returns the least recently used of a few owners. `random` returns a number below its argument. Never returns the
    /// owner that was used last.
    pub fn idle(&self, random: impl Fn(usize) -> usize) -> Option<Box<str>> {
        let picked = (0..SAMPLE).filter_map(|_| {
            let place = random(self.owners.len().max(1));
            self.owners.get_index(place)
        });
        let (owner, record) = picked.min_by_key(|(_, record)| record.used)?;
        (record.used < self.clock).then(|| owner.clone())
    }

    /// Evicts an owner, and returns the newest time of its values. From then on older changes are refused, since they
    /// can no longer be ordered.
    pub fn forget(&mut self, owner: &str) -> Millis {
        let Some(record) = self.owners.swap_remove(owner) else {
            return 0;
        };
        self.bytes -= record.bytes(owner);
        let newest = record.newest();
        self.floors.raise(owner, newest);
        newest
    }

    /// From now on changes of an owner that are older than `at` are refused.
    fn refuse_older(&mut self, owner: &str, at: Millis, expires: Millis) {
        self.floors.raise(owner, at);
        if let Some(record) = self.owners.get_mut(owner)
            && record.tombstone.map_or(0, |it| it.at) < at
        {
            record.tombstone = Some(Tombstone { at, expires });
        }
    }

    /// Repeats an eviction that the journal holds. One that a restore caused is in the journal after all that it restored,
    /// so the record may be newer.
    pub fn replay_forgotten(&mut self, owner: &str, newest: Millis) {
        let newest = self.forget(owner).max(newest);
        self.floors.raise(owner, newest);
    }

    /// Removes the expired values of the next `most` owners; returns the owners that changed.
    pub fn sweep(&mut self, most: usize, now: Millis) -> Vec<Box<str>> {
        let mut changed = Vec::new();
        for _ in 0..most.min(self.owners.len()) {
            if self.swept >= self.owners.len() {
                self.swept = 0;
            }
            let Some((owner, _)) = self.owners.get_index(self.swept) else {
                break;
            };
            let (owner, owners) = (owner.clone(), self.owners.len());
            if self.expire(&owner, now) {
                changed.push(owner);
            }
            // Another owner takes the place of one that is removed.
            if self.owners.len() == owners {
                self.swept += 1;
            }
        }
        changed
    }

    /// Returns the last records before place `end` as entries of a snapshot, and where the ones before them end. The
    /// lock may be released between two calls: an owner that is removed meanwhile gives its place to the last one, so
    /// going from the last place to the first misses no owner that stays.
    pub fn entries_before(&self, end: usize, now: Millis) -> (Vec<OwnerEntry>, usize) {
        let end = end.min(self.owners.len());
        let begin = end.saturating_sub(ENTRIES_AT_ONCE);
        let places = begin..end;
        let owners = places.filter_map(|place| self.owners.get_index(place));
        let entries = owners.map(|(owner, record)| entry_of(owner, record, now));
        (entries.collect(), begin)
    }

    /// Returns the record of an owner as an entry of a snapshot.
    pub fn entry(&self, owner: &str, now: Millis) -> Option<OwnerEntry> {
        let record = self.owners.get(owner)?;
        Some(entry_of(owner, record, now))
    }

    pub fn floors(&self) -> impl Iterator<Item = (u32, Millis)> {
        self.floors.all()
    }

    pub fn raise_floor(&mut self, place: u32, at: Millis) {
        self.floors.raise_place(place, at);
    }

    /// Puts back a record of a snapshot.
    pub fn restore(&mut self, entry: OwnerEntry) {
        // As something used, so that it can make room for others.
        self.clock += 1;
        let record = Record {
            cells: entry.cells.into_iter().map(Cell::from).collect(),
            tombstone: entry
                .tombstone
                .map(|(at, expires)| Tombstone { at, expires }),
            changed: entry.changed,
            doubted_at: entry.doubted_at,
            used: 0,
        };
        self.bytes += record.bytes(&entry.owner);
        if let Some(before) = self.owners.insert(entry.owner.clone(), record) {
            self.bytes -= before.bytes(&entry.owner);
        }
    }

    /// Applies a step of the journal again. It was applied at `entry.now`, so its values expire as they did then. The
    /// policy about what is cached was met then. Returns the newest time of a step that is lost, because its owner has
    /// made room for others since the restore began.
    pub fn replay(&mut self, entry: &StepEntry<'_>, lifetimes: Lifetimes) -> Option<Millis> {
        let step = entry.step();
        let is_there = self.owners.contains_key(entry.owner());
        let applied = self.apply(&step, false, lifetimes, entry.now);
        let is_refused = match &applied.fate {
            Fate::NotCached => true,
            Fate::Done { items, .. } => items.contains(&ItemFate::Purged),
            Fate::Locked => false,
        };
        // Where the owner is there, a purge that came later may be the reason.
        let is_lost = is_refused && !is_there;
        let times = step.items.iter().map(|item| item.at);
        let newest = times.chain([step.at]).max().filter(|_| is_lost);
        if let Some(newest) = newest {
            self.refuse_older(entry.owner(), newest, lifetimes.of_tombstones(entry.now));
        }
        // A step that found everything as it is has no items in the journal, and tells that it was true then.
        if let Some(record) = self.owners.get_mut(entry.owner()) {
            record.changed = record.changed.max(entry.now);
        }
        newest
    }
}

fn entry_of(owner: &str, record: &Record, now: Millis) -> OwnerEntry {
    OwnerEntry {
        owner: owner.into(),
        tombstone: record.tombstone(now),
        changed: record.changed,
        doubted_at: record.doubted_at,
        cells: record.cells(now).map(CellEntry::from).collect(),
    }
}

/// The key of the entitlements of the owner of a step.
pub fn owner_of(step: &Step) -> &str {
    keys::owner_of_tombstone(&step.tombstone)
}

pub fn suffix_of<'a>(owner: &str, key: &'a str) -> &'a str {
    key.strip_prefix(owner).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::{Condition, Item};

    /// Writes a value at the source's time 1; returns whether it changed anything.
    fn write(table: &mut Table, value: &str, now: Millis) -> bool {
        let lifetimes = Lifetimes {
            ttl_secs: Some(16),
            tombstone_secs: 1,
        };
        let step = Step {
            action: Action::SetCustomer,
            at: 1,
            lock: String::new(),
            tombstone: keys::tombstone_of("p:c_a"),
            items: vec![Item {
                key: "p:c_a".into(),
                at: 1,
                value: value.into(),
                condition: Condition::NotOlder,
            }],
        };
        table.apply(&step, false, lifetimes, now).changed[0]
    }

    #[test]
    fn what_is_written_again_as_it_is_changes_its_expiry_seldom() {
        let mut table = Table::new();
        let expires = |table: &Table| table.owners["p:c_a"].cells[0].expires;
        assert!(write(&mut table, "1", 0));
        assert!(!write(&mut table, "1", 1_000));
        assert_eq!(expires(&table), 16_000);
        assert_eq!(table.owners["p:c_a"].changed, 1_000, "it was confirmed");
        assert!(write(&mut table, "1", 1_001), "a sixteenth is over");
        assert_eq!(expires(&table), 17_001);
        assert!(write(&mut table, "2", 1_002), "another value");
        // It has expired, and was not removed yet.
        assert!(write(&mut table, "2", 17_003));
    }

    fn entry(owner: String) -> OwnerEntry {
        OwnerEntry {
            owner: owner.into(),
            tombstone: Some((1, Millis::MAX)),
            changed: 1,
            doubted_at: 0,
            cells: Vec::new(),
        }
    }

    #[test]
    fn after_a_repeated_eviction_nothing_older_than_what_was_there_is_applied() {
        let mut table = Table::new();
        table.restore(OwnerEntry {
            cells: vec![CellEntry {
                suffix: "".into(),
                value: "{}".into(),
                at: 10,
                expires: Millis::MAX,
            }],
            ..entry("a".to_owned())
        });
        // Evicted when it was of the time 5; what came later was restored before.
        table.replay_forgotten("a", 5);
        assert_eq!((table.len(), table.floors.of("a")), (0, Some(10)));
    }

    #[test]
    fn a_copy_in_pieces_misses_no_owner_that_stays() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut table = Table::new();
            let mut staying: BTreeSet<Box<str>> = BTreeSet::new();
            for number in 0..200 {
                table.restore(entry(format!("before-{number}")));
                staying.insert(format!("before-{number}").into());
            }
            let (mut copied, mut end) = (BTreeSet::new(), usize::MAX);
            while end > 0 {
                let owners;
                (owners, end) = table.entries_before(end, 0);
                copied.extend(owners.into_iter().map(|entry| entry.owner));
                for _ in 0..random.usize(..20) {
                    let owner = format!("before-{}", random.usize(..200));
                    table.forget(&owner);
                    staying.remove(owner.as_str());
                }
                table.restore(entry(format!("during-{end}")));
            }
            assert!(copied.is_superset(&staying));
        }
    }
}
