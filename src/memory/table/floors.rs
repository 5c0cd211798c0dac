//! Remembers the times of evicted owners, so that nothing older is applied later.

use crate::message::Millis;

/// The newest time of each owner that was evicted. Owners share places: two owners that share one cost a request to the
/// Edge API, never a stale answer.
#[derive(Debug)]
pub struct Floors(Box<[Millis]>);

const FLOORS: usize = 256;

impl Default for Floors {
    fn default() -> Self {
        Self(vec![0; FLOORS].into())
    }
}

impl Floors {
    pub fn of(&self, owner: &str) -> Option<Millis> {
        Some(self.0[place_of(owner)]).filter(|at| *at > 0)
    }

    pub fn raise(&mut self, owner: &str, at: Millis) {
        let floor = &mut self.0[place_of(owner)];
        *floor = at.max(*floor);
    }

    pub fn raise_place(&mut self, place: u32, at: Millis) {
        if let Some(floor) = self.0.get_mut(place as usize) {
            *floor = at.max(*floor);
        }
    }

    pub fn all(&self) -> impl Iterator<Item = (u32, Millis)> {
        let all = self.0.iter().enumerate();
        all.filter_map(|(place, at)| Some((u32::try_from(place).ok()?, *at)).filter(|it| it.1 > 0))
    }
}

fn place_of(owner: &str) -> usize {
    // The remainder is below FLOORS, so it fits.
    (hash(owner) >> 32) as usize % FLOORS
}

/// FNV-1a. Snapshots hold places by it, so it must be the same in every process and version.
pub fn hash(owner: &str) -> u64 {
    owner.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
