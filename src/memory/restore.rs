//! Writes the state into a snapshot, and restores it from the entries of snapshots and journals.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::{Entry, Letter, Memory, append, bytes_of, forgotten_entry, lock};
use crate::clock;
use crate::message::Millis;
use crate::snapshot::Journal;

impl Memory {
    /// Passes all entries of a snapshot to `put`, a few owners at a time, so that no part is locked for long.
    pub fn entries<E>(&self, mut put: impl FnMut(&Entry<'_>) -> Result<(), E>) -> Result<(), E> {
        let now = clock::now_ms();
        for (number, part) in (0..).zip(&self.parts) {
            let mut end = usize::MAX;
            while end > 0 {
                let owners;
                (owners, end) = lock(part).entries_before(end, now);
                for owner in owners {
                    put(&Entry::Owner(owner))?;
                }
            }
            let floors = lock(part).floors().collect();
            put(&Entry::Floors {
                part: number,
                floors,
            })?;
        }
        let letters: Vec<Letter> = self.letters().all().cloned().collect();
        letters
            .into_iter()
            .try_for_each(|letter| put(&Entry::Letter(letter)))
    }

    /// Sets the journal, once what it holds has been restored, and removes what has expired since.
    pub fn log_to(&self, journal: Arc<Journal>) {
        append(&journal, &bytes_of(&Entry::Begun));
        self.log_evictions_of_restore(&journal);
        *self.journal.write().unwrap_or_else(PoisonError::into_inner) = Some(journal);
        for part in &self.parts {
            let owners = lock(part).len();
            self.sweep_part(part, owners);
        }
    }

    /// Records what the restore evicted. An owner that a later entry brought back is recorded whole: the next restart
    /// takes these entries after all others, so an eviction alone would remove it.
    fn log_evictions_of_restore(&self, journal: &Journal) {
        let now = clock::now_ms();
        for (owner, newest) in std::mem::take(&mut *lock(&self.unlogged)) {
            append(journal, &bytes_of(&forgotten_entry(&owner, newest)));
            if let Some(entry) = self.part(&owner).entry(&owner, now) {
                append(journal, &bytes_of(&Entry::Owner(entry)));
            }
        }
    }

    /// Restores an entry of a snapshot or of the journal.
    pub fn restore(&self, entry: Entry<'_>) {
        let owner = match &entry {
            Entry::Step(step) => step.owner().to_owned(),
            Entry::Owner(entry) => entry.owner.to_string(),
            Entry::Forgotten { owner, .. } | Entry::Expired { owner, .. } => owner.to_string(),
            Entry::Floors { part, floors } => {
                let Some(part) = self.parts.get(*part as usize) else {
                    return;
                };
                let mut part = lock(part);
                for (place, at) in floors {
                    part.raise_floor(*place, *at);
                }
                return;
            }
            Entry::Proven { .. } | Entry::Begun | Entry::Ended => return,
            Entry::Letter(letter) => return self.letters().restore(letter.clone()),
            Entry::LetterDeleted { id } => {
                self.letters().delete(*id);
                return;
            }
        };
        let mut part = self.part(&owner);
        let before = part.bytes();
        match entry {
            Entry::Step(step) => {
                self.note_change(step.now);
                if let Some(newest) = part.replay(&step, self.lifetimes) {
                    // Later changes are refused for it, so the next restart must not bring it back.
                    let mut unlogged = lock(&self.unlogged);
                    let known = unlogged.entry(owner.as_str().into()).or_default();
                    *known = newest.max(*known);
                }
            }
            Entry::Owner(entry) => {
                self.note_change(entry.changed);
                if entry.doubted_at > 0 {
                    self.has_doubts.store(true, Ordering::Relaxed);
                }
                part.restore(entry);
            }
            Entry::Expired { owner, at } => {
                part.expire(&owner, at);
            }
            Entry::Forgotten { owner, newest } => part.replay_forgotten(&owner, newest),
            _ => {}
        }
        // The journal does not exist yet, and must record them, because later changes of these owners are skipped.
        let forgotten = self.make_room(&mut part, before);
        let mut unlogged = lock(&self.unlogged);
        for (owner, at) in forgotten {
            let newest = unlogged.entry(owner).or_default();
            *newest = at.max(*newest);
        }
    }
}

/// What the entries tell of the processes that wrote them.
#[derive(Debug, Default)]
pub struct Past {
    /// When all of the state was last known to be true.
    pub known_at: Millis,
    /// Whether the last process ended with no message in flight; `None`: no entry says.
    ended: Option<bool>,
    is_any: bool,
}

impl Past {
    /// Takes note of an entry. A change tells nothing of other owners: it may have come before the state was proven.
    pub fn note(&mut self, entry: &Entry<'_>) {
        self.is_any = true;
        match entry {
            Entry::Proven { at } => self.known_at = self.known_at.max(*at),
            Entry::Begun => self.ended = Some(false),
            Entry::Ended => self.ended = Some(true),
            _ => {}
        }
    }

    /// Returns whether messages may be in flight to the process that wrote the last entry.
    pub fn was_killed(&self) -> bool {
        self.is_any && self.ended != Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(entries: &[Entry<'_>]) -> Past {
        let mut past = Past::default();
        entries.iter().for_each(|entry| past.note(entry));
        past
    }

    fn expired() -> Entry<'static> {
        Entry::Expired {
            owner: "a".into(),
            at: 9,
        }
    }

    #[test]
    fn only_a_process_that_ended_in_order_has_nothing_in_flight() {
        for (entries, was_killed) in [
            (vec![], false),
            (vec![Entry::Begun], true),
            (vec![expired()], true),
            (vec![expired(), Entry::Ended], false),
            // What has expired while the last snapshot was written comes after it.
            (vec![Entry::Begun, Entry::Ended, expired()], false),
            (vec![Entry::Ended, Entry::Begun, expired()], true),
        ] {
            assert_eq!(past(&entries).was_killed(), was_killed, "{entries:?}");
        }
    }

    #[test]
    fn only_a_proof_tells_when_all_of_the_state_was_true() {
        let proven = |at| Entry::Proven { at };
        let past = past(&[proven(5), proven(7), proven(6), expired()]);
        assert_eq!(past.known_at, 7);
    }
}
