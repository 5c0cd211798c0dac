//! The store of a process without Redis: it holds the state itself, by the same write rule.
//!
//! What it holds is bounded. The least recently used owners go first, and are asked for at the Edge API again. A journal
//! makes each change durable before its message is acknowledged; without one, a restart begins with nothing.

mod doubt;
mod entry;
mod letters;
mod restore;
mod table;

pub use doubt::Certainty;
pub use entry::{CellEntry, Entry, Letter, OwnerEntry, StepEntry};
pub use letters::Letters;
pub use restore::Past;
pub use table::{Lifetimes, Record};

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use crate::clock;
use crate::keys::{self, Keys, Owner};
use crate::message::Millis;
use crate::plan::{Fate, ItemFate, Step};
use crate::reader::{Pair, Stored};
use crate::snapshot::Journal;
use table::{Cell, Table};

/// The in-process store.
pub struct Memory {
    parts: Box<[Mutex<Table>]>,
    keys: Keys,
    lifetimes: Lifetimes,
    max_bytes: u64,
    bytes: AtomicU64,
    evictions: AtomicU64,
    changes: AtomicU64,
    /// When an owner last changed.
    changed_at: AtomicU64,
    /// Whether owners may be doubted.
    has_doubts: AtomicBool,
    letters: Mutex<Letters>,
    journal: RwLock<Option<Arc<Journal>>>,
    /// Owners that a restore evicted, for the journal, each with its newest time.
    unlogged: Mutex<HashMap<Box<str>, Millis>>,
    /// Called with each customer that changed.
    changed: RwLock<Option<Listener>>,
}

type Listener = Box<dyn Fn(&str) + Send + Sync>;

/// What an operator must know of a state without a folder.
pub const NOT_KEPT: &str = "STORE is memory and SNAPSHOT_PATH is not set: a restart begins with nothing and asks the Edge API for each customer, and no lock keeps a second process from the queue, where each would miss changes that the other receives";

/// What an operator must know of a state that was restored from damaged files.
pub const INCOMPLETE: &str = "files in SNAPSHOT_PATH were damaged, and changes are missing: answers about each restored customer are marked as stale until the Edge API or a newer message confirms it";

/// Parts that are locked apart.
const PARTS: usize = 256;
/// Owners that one call of [`Memory::sweep`] looks at in each part.
const OWNERS_PER_SWEEP: usize = 8;

impl Memory {
    pub fn new(keys: Keys, lifetimes: Lifetimes, max_bytes: u64) -> Self {
        Self {
            parts: (0..PARTS).map(|_| Mutex::new(Table::new())).collect(),
            keys,
            lifetimes,
            max_bytes,
            bytes: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            changed_at: AtomicU64::new(0),
            has_doubts: AtomicBool::new(false),
            letters: Mutex::default(),
            journal: RwLock::default(),
            unlogged: Mutex::default(),
            changed: RwLock::default(),
        }
    }

    /// Sets the listener for each customer that changes or whose change was refused.
    pub fn tell(&self, changed: impl Fn(&str) + Send + Sync + 'static) {
        let changed: Listener = Box::new(changed);
        *self.changed.write().unwrap_or_else(PoisonError::into_inner) = Some(changed);
    }

    /// Applies a step by the write rule.
    pub fn apply(&self, step: &Step, update_if_exists: bool) -> Fate {
        let now = clock::now_ms();
        let owner = table::owner_of(step);
        let mut part = self.part(owner);
        let before = part.bytes();
        if part.expire(owner, now) {
            self.log_expired(owner, now);
        }
        let table::Applied { fate, changed } =
            part.apply(step, update_if_exists, self.lifetimes, now);
        if let Fate::Done {
            items,
            leaves_tombstone,
        } = &fate
        {
            let changes = |it: &ItemFate| matches!(it, ItemFate::Written | ItemFate::Deleted);
            if *leaves_tombstone || items.iter().any(changes) {
                self.note_change(now);
                self.log(&Entry::Step(StepEntry::new(step, &changed, now)));
            }
        }
        let forgotten = self.make_room(&mut part, before);
        drop(part);
        // Also of what was refused: what readers hold may be of the Edge API, and older than the change.
        self.told(owner);
        forgotten.iter().for_each(|(owner, _)| self.told(owner));
        fate
    }

    /// Forgets owners of this part until all fits; counts what the part grew by since `before`.
    fn make_room(&self, part: &mut MutexGuard<'_, Table>, before: u64) -> Vec<(Box<str>, Millis)> {
        let mut forgotten = Vec::new();
        let mut counted = before;
        loop {
            let now = part.bytes();
            // Wraps where it shrank.
            let change = now.wrapping_sub(counted);
            let total = self
                .bytes
                .fetch_add(change, Ordering::Relaxed)
                .wrapping_add(change);
            counted = now;
            if total <= self.max_bytes {
                return forgotten;
            }
            let Some(owner) = part.idle(|most| fastrand::usize(..most)) else {
                return forgotten;
            };
            let newest = part.forget(&owner);
            self.evictions.fetch_add(1, Ordering::Relaxed);
            self.log(&forgotten_entry(&owner, newest));
            forgotten.push((owner, newest));
        }
    }

    /// Returns what is stored of an owner, and how certain it is. A resource is as certain as its customer: a newer change
    /// of the customer makes it a miss.
    pub fn read(&self, owner: Owner<'_>) -> (Stored, Certainty) {
        let now = clock::now_ms();
        let mut certainty = Certainty::default();
        let customer_timestamp = owner.resource.and_then(|_| {
            let customer = self.keys.entitlements(Owner {
                resource: None,
                ..owner
            });
            let mut part = self.part(&customer);
            let record = part.read(&customer)?;
            certainty.is_doubted = record.is_doubted();
            Some(record.cell("", now)?.at.to_string())
        });
        let key = self.keys.entitlements(owner);
        let mut part = self.part(&key);
        let mut stored = Stored::default();
        if let Some(record) = part.read(&key) {
            certainty.changed = record.changed;
            certainty.is_doubted |= record.is_doubted();
            stored = self.stored(&key, record, now);
        }
        stored.customer_timestamp = customer_timestamp;
        (stored, certainty)
    }

    fn stored(&self, owner: &str, record: &Record, now: Millis) -> Stored {
        let mut stored = Stored::default();
        for cell in record.cells(now) {
            let pair = pair(cell);
            let key = [owner, &cell.suffix].concat();
            match self.keys.read(&key).map(|key| key.kind) {
                Some(keys::KeyKind::Entitlements) => stored.entitlements = pair,
                Some(keys::KeyKind::Metadata) => stored.metadata = pair,
                Some(keys::KeyKind::FeatureUsage(feature)) => {
                    stored.usages.insert(feature.to_owned(), pair);
                }
                Some(keys::KeyKind::CreditUsage(_) | keys::KeyKind::Tombstone) | None => {}
            }
        }
        stored
    }

    /// Returns a copy of the record of an owner.
    pub fn record(&self, owner: Owner<'_>) -> Option<Record> {
        let key = self.keys.entitlements(owner);
        self.part(&key).read(&key).cloned()
    }

    /// Removes some of what has expired.
    pub fn sweep(&self) {
        for part in &self.parts {
            self.sweep_part(part, OWNERS_PER_SWEEP);
        }
    }

    fn sweep_part(&self, part: &Mutex<Table>, most: usize) {
        let now = clock::now_ms();
        let mut part = lock(part);
        let before = part.bytes();
        let changed = part.sweep(most, now);
        let change = part.bytes().wrapping_sub(before);
        self.bytes.fetch_add(change, Ordering::Relaxed);
        changed
            .iter()
            .for_each(|owner| self.log_expired(owner, now));
        drop(part);
        changed.iter().for_each(|owner| self.told(owner));
    }

    fn log_expired(&self, owner: &str, at: Millis) {
        self.log(&Entry::Expired {
            owner: owner.into(),
            at,
        });
    }

    /// Records that all of the state was known to be true at a time, for readers after a restart.
    pub fn log_proven(&self, at: Millis) {
        if let Some(journal) = &*read(&self.journal) {
            append(journal, &bytes_of(&Entry::Proven { at }));
        }
    }

    /// Keeps a message that was given up, and at most `most` of them.
    pub fn keep(&self, letter: Letter, most: u64) {
        // Logged while the lock is held, so that the order is that of the changes.
        let mut letters = self.letters();
        let kept = letters.keep(letter, most);
        self.log(&Entry::Letter(kept));
    }

    /// Deletes a kept message; returns whether it was there.
    pub fn delete_letter(&self, id: u64) -> bool {
        let mut letters = self.letters();
        let deleted = letters.delete(id);
        if deleted {
            self.log(&Entry::LetterDeleted { id });
        }
        deleted
    }

    pub fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(|lock| lock.into_inner())
    }

    /// Counts the changes since the start.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Returns when an owner last changed, here or in a process before.
    pub fn changed_at(&self) -> Millis {
        self.changed_at.load(Ordering::Relaxed)
    }

    fn note_change(&self, at: Millis) {
        self.changed_at.fetch_max(at, Ordering::Relaxed);
    }

    pub fn owners(&self) -> usize {
        self.parts.iter().map(|part| lock(part).len()).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    fn part(&self, owner: &str) -> MutexGuard<'_, Table> {
        // The remainder is below PARTS, so it fits.
        lock(&self.parts[table::hash(owner) as usize % PARTS])
    }

    fn log(&self, entry: &Entry<'_>) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        if let Some(journal) = &*read(&self.journal) {
            append(journal, &bytes_of(entry));
        }
    }

    fn told(&self, owner: &str) {
        if let Some(changed) = &*read(&self.changed)
            && let Some(key) = self.keys.read(owner)
        {
            changed(key.owner.customer);
        }
    }
}

fn forgotten_entry(owner: &str, newest: Millis) -> Entry<'_> {
    Entry::Forgotten {
        owner: owner.into(),
        newest,
    }
}

fn append(journal: &Journal, entry: &[u8]) {
    // A plan is smaller: the body of a message is bounded.
    if let Err(error) = journal.append(entry) {
        tracing::error!(%error, "a change is too large for the journal");
    }
}

/// The bytes of an entry in the journal and in snapshots.
pub fn bytes_of(entry: &Entry<'_>) -> Vec<u8> {
    // Texts and numbers can always be written as JSON.
    serde_json::to_vec(entry).unwrap_or_default()
}

fn pair(cell: &Cell) -> Pair {
    Pair {
        value: Some(cell.value.to_string()),
        timestamp: Some(cell.at.to_string()),
    }
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(|lock| lock.into_inner())
}

fn read<T>(shared: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    shared.read().unwrap_or_else(PoisonError::into_inner)
}
