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
    journal: Option<Arc<Journal>>,
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
        let durability = match &journal {
            Some(journal) => Durability::start(journal.clone(), gate),
            None => Durability::default(),
        };
        let local = Self {
            memory,
            journal,
            durability,
            update_if_exists,
            confirms: false,
            proven,
        };
        tokio::spawn(maintain(local.clone()));
        local
    }

    /// Returns this store for what the read API fetches.
    pub fn upserting(&self) -> Self {
        Self {
            update_if_exists: false,
            confirms: true,
            ..self.clone()
        }
    }

    /// Returns the bytes of changes that are not durable yet.
    fn buffered_bytes(&self) -> usize {
        let journal = self.journal.as_ref();
        journal.map_or(0, |journal| journal.buffered_bytes())
    }

    /// Returns whether the journal has room for changes that no message brought, which nothing else bounds.
    pub fn has_room(&self) -> bool {
        self.buffered_bytes() < MAX_BUFFERED_BYTES
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

/// Beyond this the store takes no more of what the read API fetched.
const MAX_BUFFERED_BYTES: usize = 4 << 20;
/// Beyond this the journal is synced, although no acknowledgement waits for it.
const SYNC_BYTES: usize = 1 << 20;
const SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// Sweeps between two syncs that nothing asked for.
const SWEEPS_PER_SYNC: u32 = 75;

/// Removes what has expired, and notes in the journal while the state is proven, so that a restart knows its age. Syncs
/// what no acknowledgement waits for: what the read API fetched.
async fn maintain(local: Local) {
    let mut was_proven = false;
    for sweeps in 1_u32.. {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        local.memory.sweep();
        let is_due = sweeps.is_multiple_of(SWEEPS_PER_SYNC);
        let is_proven = local.proven.is_proven();
        let is_news = is_proven && !was_proven;
        was_proven = is_proven;
        if is_news || is_proven && is_due {
            local
                .memory
                .log_proven(local.proven.known_at(clock::now_ms()));
        }
        if is_news || is_due || local.buffered_bytes() > SYNC_BYTES {
            local.durability.durable().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    use crate::keys::Keys;
    use crate::memory::Lifetimes;
    use crate::metrics::Metrics;
    use crate::snapshot::{Folder, Secret};

    fn local(journal: Option<Arc<Journal>>) -> Local {
        let lifetimes = Lifetimes {
            ttl_secs: None,
            tombstone_secs: 1,
        };
        let memory = Memory::new(Keys::new("p"), lifetimes, u64::MAX);
        let gate = Gate::of_journal(Arc::new(Health::in_memory()), Metrics::new().0);
        Local::start(Arc::new(memory), journal, false, gate)
    }

    #[tokio::test]
    async fn a_journal_that_cannot_be_written_has_room_for_a_few_changes_only() {
        let parent = tempfile::tempdir().unwrap();
        let (path, away) = (parent.path().join("here"), parent.path().join("away"));
        let secret = Secret::parse("a passphrase of some length").unwrap();
        let folder = Folder::open(&path, "p", secret, None, 1).unwrap();
        let journal = folder.journal();
        let local = local(Some(journal.clone()));
        std::fs::rename(&path, &away).unwrap();
        let record = vec![b'x'; 64 << 10];
        let mut appended = 0;
        while local.has_room() {
            journal.append(&record).unwrap();
            appended += record.len();
        }
        assert!(appended <= MAX_BUFFERED_BYTES + record.len(), "{appended}");
        assert!(journal.sync().is_err() && !local.has_room());
        std::fs::rename(&away, &path).unwrap();
        journal.sync().unwrap();
        assert!(local.has_room());
    }

    #[tokio::test]
    async fn without_a_journal_there_is_room() {
        assert!(local(None).has_room());
    }
}
