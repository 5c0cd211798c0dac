//! Judges a message by the outcomes of its steps, for the worker and the commands.

use super::Applied;
use crate::metrics::Outcome;

/// The finished steps of one message.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Items written or deleted.
    pub written: u32,
    /// Items that Redis holds in a newer state.
    pub stale: u32,
    not_cached: bool,
    expired: bool,
}

impl Tally {
    pub fn add(&mut self, applied: &Applied) {
        match applied {
            Applied::Written { written, stale } => {
                self.written += written;
                self.stale += stale;
            }
            Applied::NotCached => self.not_cached = true,
            Applied::Expired => self.expired = true,
            Applied::Locked | Applied::Failed(_) => {}
        }
    }

    /// Returns the outcome of a message whose steps are all finished. A message without steps was
    /// superseded by its neighbours.
    pub fn outcome(self) -> Outcome {
        if self.written > 0 {
            Outcome::Applied
        } else if self.expired && self.stale == 0 {
            Outcome::Expired
        } else if self.not_cached && self.stale == 0 {
            Outcome::Skipped
        } else {
            Outcome::Stale
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_judged_by_all_its_steps() {
        let written = |written, stale| Applied::Written { written, stale };
        let judged = |steps: &[Applied]| {
            let mut tally = Tally::default();
            steps.iter().for_each(|step| tally.add(step));
            tally.outcome().as_str()
        };
        assert_eq!(judged(&[]), "stale");
        assert_eq!(judged(&[written(0, 3)]), "stale");
        assert_eq!(judged(&[written(1, 3)]), "applied");
        assert_eq!(judged(&[written(0, 1), written(1, 0)]), "applied");
        assert_eq!(judged(&[Applied::NotCached]), "skipped");
        assert_eq!(judged(&[Applied::Expired]), "expired");
        assert_eq!(judged(&[Applied::NotCached, written(0, 1)]), "stale");
    }
}
