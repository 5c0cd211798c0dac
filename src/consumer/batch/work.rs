//! One message that is planned, and what is known of its steps.

use tokio::sync::OwnedSemaphorePermit;

use crate::consumer::lease::Held;
use crate::message::Kind;
use crate::metrics::Outcome;
use crate::plan::Step;
use crate::store::Applied;

pub(super) struct Work {
    pub held: Held,
    pub kind: Kind,
    pub trace_id: Option<String>,
    /// Not known to be in Redis: what is sent, and sent again.
    pub steps: Vec<Step>,
    /// Of the steps that are.
    pub done: Tally,
    pub locked_tries: u32,
    /// A call with it failed, and the call may be the cause: it is tried alone.
    pub is_suspect: bool,
    /// Why it is to be refused as soon as Redis takes writes.
    pub blamed: Option<String>,
    /// Held by a doubtful message until an attempt is survived.
    pub doubtful: Option<OwnedSemaphorePermit>,
    /// Held by a large body for as long as its plan is there.
    pub large: Option<OwnedSemaphorePermit>,
}

impl Work {
    pub fn new(held: Held, kind: Kind, trace_id: Option<String>, steps: Vec<Step>) -> Self {
        Self {
            held,
            kind,
            trace_id,
            steps,
            done: Tally::default(),
            locked_tries: 0,
            is_suspect: false,
            blamed: None,
            doubtful: None,
            large: None,
        }
    }

    pub fn bytes(&self) -> usize {
        bytes_of(&self.steps)
    }
}

/// Bytes of keys and values.
pub(super) fn bytes_of(steps: &[Step]) -> usize {
    let items = steps.iter().flat_map(|step| &step.items);
    items.map(|item| item.key.len() + item.value.len()).sum()
}

/// What became of the steps that are done.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    written: bool,
    stale: bool,
    skipped: bool,
    expired: bool,
}

impl Tally {
    pub fn add(&mut self, applied: &Applied) {
        match applied {
            Applied::Written { written, stale } => {
                self.written |= *written > 0;
                self.stale |= *stale > 0;
            }
            Applied::NotCached => self.skipped = true,
            Applied::Expired => self.expired = true,
            Applied::Locked | Applied::Failed(_) => {}
        }
    }

    /// Of a message all of whose steps are done. None at all: its neighbours superseded them.
    pub fn outcome(self) -> Outcome {
        if self.written {
            Outcome::Applied
        } else if self.expired && !self.stale {
            Outcome::Expired
        } else if self.skipped && !self.stale {
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
