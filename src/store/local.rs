//! The state in this process. What the queue has delivered proves that it is true.

mod durability;
mod proven;
mod watched;

pub use durability::Durability;
pub use proven::Proven;
pub use watched::Watched;

use std::sync::Arc;
use std::time::Duration;

use super::monitor::Gate;
use super::{Applied, Attempt, DeadLetter, StoreError};
use crate::clock;
use crate::memory::{Letter, Memory};
use crate::plan::{Fate, Step};
use crate::queue::Delivery;
use crate::snapshot::{Journal, MAX_RECORD_BYTES};

/// The state in memory. Clones share it.
#[derive(Clone)]
pub(super) struct Local {
    memory: Arc<Memory>,
    durability: Durability,
    update_if_exists: bool,
    /// What it applies comes from the Edge API, which knows the state of now.
    confirms: bool,
    pub proven: Arc<Proven>,
}

impl Local {
    pub fn start(
        memory: Arc<Memory>,
        journal: Option<Arc<Journal>>,
        update_if_exists: bool,
        gate: Gate,
    ) -> Self {
        let proven = Arc::new(Proven::new());
        let durability = match journal {
            Some(journal) => Durability::start(journal, gate),
            None => Durability::default(),
        };
        tokio::spawn(maintain(memory.clone(), proven.clone(), durability.clone()));
        Self {
            memory,
            durability,
            update_if_exists,
            confirms: false,
            proven,
        }
    }

    /// Returns this store for what the read API fetches.
    pub fn upserting(&self) -> Self {
        Self {
            update_if_exists: false,
            confirms: true,
            ..self.clone()
        }
    }

    pub fn apply(&self, steps: &[&Step]) -> Attempt {
        let applied = steps.iter().map(|step| self.apply_one(step));
        Attempt {
            applied: applied.collect(),
            error: None,
        }
    }

    fn apply_one(&self, step: &Step) -> Applied {
        if bytes_of(step) > MAX_STEP_BYTES {
            return Applied::Failed(StoreError::too_large());
        }
        let fate = self.memory.apply(step, self.update_if_exists);
        if self.confirms && matches!(fate, Fate::Done { .. }) {
            self.memory.confirm(step);
        }
        match fate {
            Fate::Locked => Applied::Locked,
            Fate::NotCached => Applied::NotCached,
            Fate::Done {
                items,
                leaves_tombstone,
            } => match Fate::counts(&items, leaves_tombstone) {
                Some((written, stale)) => Applied::Written { written, stale },
                None => Applied::Expired,
            },
        }
    }

    /// Keeps a message. One that must survive a restart needs a journal; without one it stays in the queue.
    pub fn keep(&self, letter: DeadLetter<'_>, most: u64) -> Result<(), StoreError> {
        if letter.must_last && self.durability.is_immediate() {
            return Err(StoreError::without_journal());
        }
        let letter = Letter {
            id: 0,
            message_id: letter.message_id.to_owned(),
            reason: letter.reason.to_owned(),
            kind: letter.kind.to_owned(),
            receive_count: letter.receive_count,
            sent_at: letter.sent_at,
            kept_at: clock::now_ms(),
            body: letter.body.to_owned(),
            type_attribute: letter.type_attribute.map(str::to_owned),
        };
        self.memory.keep(letter, most);
        Ok(())
    }

    /// Returns the state as a source of the read API.
    pub fn watched(&self) -> Watched {
        Watched::new(self.memory.clone(), self.proven.clone())
    }

    pub fn durability(&self) -> Durability {
        self.durability.clone()
    }

    pub fn received(&self, messages: &[Delivery], wait: Duration, hidden: Duration) {
        // A receive that does not wait asks only some of the servers of SQS.
        let is_empty = messages.is_empty() && !wait.is_zero();
        let first = messages.iter().filter(|it| it.receive_count <= 1);
        // A queue that does not tell proves nothing by its messages.
        let waited = first.map(|it| it.waited.unwrap_or(Duration::MAX));
        self.proven.received(is_empty, waited.max(), hidden);
    }
}

/// An entry of the journal escapes the quotes of its values, so it may be twice as large as its step.
const MAX_STEP_BYTES: usize = MAX_RECORD_BYTES / 3;

fn bytes_of(step: &Step) -> usize {
    let items = step.items.iter();
    items.map(|item| item.key.len() + item.value.len()).sum()
}

const SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// Sweeps between two notes in the journal that the state is true.
const SWEEPS_PER_NOTE: u32 = 75;

/// Removes what has expired, and notes in the journal while the state is proven, so that a restart knows its age.
async fn maintain(memory: Arc<Memory>, proven: Arc<Proven>, durability: Durability) {
    let mut was_proven = false;
    for sweeps in 1_u32.. {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        memory.sweep();
        let is_proven = proven.is_proven();
        let is_news = is_proven && !was_proven;
        was_proven = is_proven;
        if is_news || is_proven && sweeps.is_multiple_of(SWEEPS_PER_NOTE) {
            memory.log_proven(proven.known_at(clock::now_ms()));
            durability.durable().await;
        }
    }
}
