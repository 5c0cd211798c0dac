//! Reads the state in memory for the read API, with the proof that it is true.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Proven;
use crate::clock;
use crate::keys::Owner;
use crate::memory::{Certainty, Memory};
use crate::reader::Stored;
use crate::store::{Mark, Tracking};

/// The state in memory, as a source of the read API. Clones share it.
#[derive(Clone)]
pub struct Watched {
    memory: Arc<Memory>,
    proven: Arc<Proven>,
    changes: Arc<AtomicU64>,
}

const UNPROVEN: &str = "the queue has not been read to its end";

impl Watched {
    pub fn new(memory: Arc<Memory>, proven: Arc<Proven>) -> Self {
        let changes = Arc::new(AtomicU64::new(0));
        let (told, count) = (proven.clone(), changes.clone());
        memory.tell(move |customer| {
            told.proof.change(customer, told.now());
            count.fetch_add(1, Ordering::Relaxed);
        });
        Self {
            memory,
            proven,
            changes,
        }
    }

    pub fn read(&self, owner: Owner<'_>) -> (Stored, Mark) {
        let mark = self.proven.mark();
        let (stored, certainty) = self.memory.read(owner);
        let mark = self.proven.mark_of(mark, certainty, clock::now_ms());
        (stored, mark)
    }

    pub fn mark(&self) -> Mark {
        self.proven.mark()
    }

    pub fn now(&self) -> u64 {
        self.proven.now()
    }

    pub fn fresh_age(&self, customer: &str, mark: Mark) -> Option<Duration> {
        let age = self
            .proven
            .proof
            .fresh_age(customer, mark, self.proven.now());
        age.map(Duration::from_micros)
    }

    pub fn has_changed(&self, customer: &str, mark: Mark) -> bool {
        self.proven.proof.has_changed(customer, mark)
    }

    pub fn age(&self, customer: &str, mark: Mark) -> Duration {
        let now = self.proven.now();
        Duration::from_micros(self.proven.proof.age(customer, mark, now))
    }

    pub fn is_proven(&self) -> bool {
        self.proven.is_proven()
    }

    pub fn tracking(&self) -> Tracking {
        match self.is_proven() {
            true => Tracking::On,
            false => Tracking::Away(UNPROVEN.to_owned()),
        }
    }

    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Whether there are owners that may be answered, at most `ttl` after the last proof or change.
    pub fn holds_any(&self, ttl: Option<Duration>) -> bool {
        let newest = Certainty {
            changed: self.memory.changed_at(),
            is_doubted: false,
        };
        let mark = self.proven.mark_of(self.mark(), newest, clock::now_ms());
        let now = self.proven.now();
        let age = Duration::from_micros(self.proven.proof.age("", mark, now));
        self.memory.owners() > 0 && ttl.is_none_or(|ttl| age < ttl)
    }
}
