//! One message that is planned, and what is known of its steps.

use tokio::sync::OwnedSemaphorePermit;

use crate::consumer::lease::Held;
use crate::message::Kind;
use crate::plan::Step;
use crate::store::Tally;

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
