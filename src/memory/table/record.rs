//! Holds the stored values of one owner.

use super::Lifetimes;
use crate::message::Millis;
use crate::plan::Item;

/// The stored values of one owner.
#[derive(Debug, Default, Clone)]
pub struct Record {
    pub(super) cells: Vec<Cell>,
    pub(super) tombstone: Option<Tombstone>,
    /// When it last changed.
    pub changed: Millis,
    /// When a restore found that changes of it may be missing; 0: it is certain.
    pub(super) doubted_at: Millis,
    pub(super) used: u64,
}

/// A value with its timestamp. Both expire together.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Its key without the key of its owner's entitlements, which are the empty suffix.
    pub suffix: Box<str>,
    pub value: Box<str>,
    /// The time of the value at its source.
    pub at: Millis,
    /// The last millisecond of its life.
    pub expires: Millis,
}

#[derive(Debug, Clone, Copy)]
pub struct Tombstone {
    pub(super) at: Millis,
    pub(super) expires: Millis,
}

/// The bytes of a record beside its values, and of a value beside its texts.
const RECORD_BYTES: usize = 152;
const CELL_BYTES: usize = 80;
impl Record {
    pub(super) fn new(at: Option<Millis>, expires: Millis) -> Self {
        Self {
            tombstone: at.map(|at| Tombstone { at, expires }),
            ..Self::default()
        }
    }

    /// Returns whether changes of it may be missing since a restore.
    pub fn is_doubted(&self) -> bool {
        self.doubted_at > 0
    }

    /// Returns the values that have not expired.
    pub fn cells(&self, now: Millis) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter(move |cell| cell.lives(now))
    }

    pub fn cell(&self, suffix: &str, now: Millis) -> Option<&Cell> {
        self.cells(now).find(|cell| &*cell.suffix == suffix)
    }

    /// Returns the time of the tombstone, and the last millisecond of its life.
    pub fn tombstone(&self, now: Millis) -> Option<(Millis, Millis)> {
        let living = self.tombstone.filter(|it| now <= it.expires);
        living.map(|tombstone| (tombstone.at, tombstone.expires))
    }

    /// Returns the newest time of all values: once they are gone, older changes can no longer be ordered.
    pub(super) fn newest(&self) -> Millis {
        let times = self.cells.iter().map(|cell| cell.at);
        let tombstone = self.tombstone.map(|tombstone| tombstone.at);
        times.chain(tombstone).max().unwrap_or(0)
    }

    /// Writes an item; returns whether that changed anything. One that is there as it is keeps its expiry, unless that
    /// would be much later now.
    pub(super) fn write(
        &mut self,
        suffix: &str,
        item: &Item,
        now: Millis,
        lifetimes: Lifetimes,
    ) -> bool {
        let cell = Cell {
            suffix: suffix.into(),
            value: item.value.as_str().into(),
            at: item.at,
            expires: lifetimes.of_values(now),
        };
        match self.cells.iter_mut().find(|it| it.suffix == cell.suffix) {
            Some(place) if place.is_as(&cell, now, lifetimes) => return false,
            Some(place) => *place = cell,
            None => self.cells.push(cell),
        }
        true
    }

    pub(super) fn drop_expired(&mut self, now: Millis) -> bool {
        let before = (self.cells.len(), self.tombstone.is_some());
        self.cells.retain(|cell| cell.lives(now));
        self.tombstone = self.tombstone.filter(|it| now <= it.expires);
        before != (self.cells.len(), self.tombstone.is_some())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.tombstone.is_none()
    }

    pub(super) fn bytes(&self, owner: &str) -> u64 {
        let of_cell = |cell: &Cell| CELL_BYTES + cell.suffix.len() + cell.value.len();
        let cells: usize = self.cells.iter().map(of_cell).sum();
        (RECORD_BYTES + owner.len() + cells) as u64
    }
}

impl Cell {
    pub(super) fn lives(&self, now: Millis) -> bool {
        now <= self.expires
    }

    /// Returns whether another cell would change nothing.
    fn is_as(&self, other: &Self, now: Millis, lifetimes: Lifetimes) -> bool {
        self.lives(now)
            && self.at == other.at
            && self.value == other.value
            && !lifetimes.extends(self.expires, other.expires)
    }
}
