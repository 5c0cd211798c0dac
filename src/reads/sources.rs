//! Tells which sources can answer now, for the probes and the status.

use super::Reads;
use super::copy::Slot;
use crate::keys::Owner;

/// The sources that can answer now.
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    pub redis: bool,
    /// The Edge API takes a question. After a pause it counts as one that does: only a question can tell.
    pub upstream: bool,
    pub copies: bool,
}

impl Sources {
    pub fn can_answer(self) -> bool {
        self.redis || self.upstream || self.copies
    }
}

impl Reads {
    /// What can be asked now.
    pub fn sources(&self) -> Sources {
        let tracked = &self.loader.tracked;
        Sources {
            redis: tracked.is_up(),
            upstream: !self.loader.breaker.is_paused(),
            copies: tracked.holds_any(self.ttl)
                || self.copy.any(|owner, slot| self.is_answerable(owner, slot)),
        }
    }

    /// Whether a copy may be answered although nothing confirms it. Copies of unknown customers do not count.
    pub(super) fn is_answerable(&self, owner: Owner<'_>, slot: &Slot) -> bool {
        let is_recent = |ttl| self.age(owner, slot) < ttl;
        !slot.is_unknown && self.ttl.is_none_or(is_recent)
    }
}
