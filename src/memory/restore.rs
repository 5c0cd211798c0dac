//! Writes the state into a snapshot, and restores it from the entries of snapshots and journals.

use super::{Entry, Letter, Memory, lock};
use crate::clock;
use crate::message::Millis;

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

    /// Restores an entry of a snapshot or of the journal. Returns the time at which the state was known to be true, if
    /// the entry holds it.
    pub fn restore(&self, entry: Entry<'_>) -> Option<Millis> {
        let owner = match &entry {
            Entry::Step(step) => step.owner().to_owned(),
            Entry::Owner(entry) => entry.owner.to_string(),
            Entry::Forgotten { owner, .. } | Entry::Expired { owner, .. } => owner.to_string(),
            Entry::Floors { part, floors } => {
                let mut part = lock(self.parts.get(*part as usize)?);
                for (place, at) in floors {
                    part.raise_floor(*place, *at);
                }
                return None;
            }
            Entry::Proven { at } => return Some(*at),
            Entry::Begun | Entry::Ended => return None,
            Entry::Letter(letter) => {
                self.letters().restore(letter.clone());
                return None;
            }
            Entry::LetterDeleted { id } => {
                self.letters().delete(*id);
                return None;
            }
        };
        let mut part = self.part(&owner);
        let before = part.bytes();
        let known = match entry {
            Entry::Step(step) => {
                part.replay(&step, self.lifetimes);
                Some(step.now)
            }
            Entry::Owner(entry) => {
                part.restore(entry);
                None
            }
            Entry::Expired { owner, at } => {
                part.expire(&owner, at);
                None
            }
            Entry::Forgotten { owner, newest } => {
                part.replay_forgotten(&owner, newest);
                None
            }
            _ => None,
        };
        // The journal does not exist yet, and must record them, because later changes of these owners are skipped.
        let forgotten = self.make_room(&mut part, before);
        let mut unlogged = lock(&self.unlogged);
        for (owner, at) in forgotten {
            let newest = unlogged.entry(owner).or_default();
            *newest = at.max(*newest);
        }
        known
    }
}
