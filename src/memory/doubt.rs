//! Doubts what a restore brought after damage: changes that were acknowledged are missing, and the queue no longer has them.

use std::sync::atomic::Ordering;

use super::table::owner_of;
use super::{Memory, lock};
use crate::message::Millis;
use crate::plan::Step;

/// How certain what is stored of an owner is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Certainty {
    /// When it last changed.
    pub changed: Millis,
    /// Later changes may be missing: nothing has confirmed it since the damage.
    pub is_doubted: bool,
}

impl Memory {
    /// Doubts all owners. `at`: the time of now, which is later than that of all changes that are missing.
    pub fn doubt(&self, at: Millis) {
        self.has_doubts.store(true, Ordering::Relaxed);
        self.parts.iter().for_each(|part| lock(part).doubt(at));
    }

    /// Records that another source has just told the state of the owner of a step.
    pub fn confirm(&self, step: &Step) {
        let owner = owner_of(step);
        self.part(owner).confirm(owner);
    }

    /// Counts the owners that nothing has confirmed.
    pub fn doubted(&self) -> usize {
        match self.has_doubts.load(Ordering::Relaxed) {
            true => self.parts.iter().map(|part| lock(part).doubted()).sum(),
            false => 0,
        }
    }
}
