//! Knows until when what is written lives.

use crate::message::Millis;

/// The lifetime of what is written.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// `None`: values do not expire.
    pub ttl_secs: Option<u32>,
    pub tombstone_secs: u32,
}

impl Lifetimes {
    pub fn of_values(self, now: Millis) -> Millis {
        let secs = self.ttl_secs.map(u64::from);
        secs.map_or(Millis::MAX, |secs| now.saturating_add(secs * 1000))
    }

    /// Returns whether a value that is written again as it is must get its new expiry: what differs by less than a
    /// sixteenth of its lifetime is not worth an entry of the journal.
    pub fn extends(self, before: Millis, after: Millis) -> bool {
        let lifetime = self.ttl_secs.map_or(0, |secs| u64::from(secs) * 1000);
        after.abs_diff(before) > lifetime / 16
    }

    pub fn of_tombstones(self, now: Millis) -> Millis {
        now.saturating_add(u64::from(self.tombstone_secs) * 1000)
    }
}
