//! A planned message and the state of its steps.

use tokio::sync::OwnedSemaphorePermit;

use crate::consumer::lease::Held;
use crate::message::Kind;
use crate::plan::Step;
use crate::store::Tally;

pub(super) struct Work {
    pub held: Held,
    pub kind: Kind,
    pub trace_id: Option<String>,
    /// The unknown kind of an event in it: a copy is kept once its steps are finished.
    pub unrecognised: Option<String>,
    /// The steps that are not known to be in Redis, which are sent until they are.
    pub steps: Vec<Step>,
    /// The outcomes of the finished steps.
    pub done: Tally,
    pub locked_tries: u32,
    /// Whether a call with it failed and may be the cause: it is then tried alone.
    pub is_suspect: bool,
    /// Why it must be refused as soon as Redis takes writes.
    pub blamed: Option<String>,
    /// The permit of a suspect message, held until an attempt has ended.
    pub doubtful: Option<OwnedSemaphorePermit>,
    /// The permit of a large body, held as long as its plan exists.
    pub large: Option<OwnedSemaphorePermit>,
}

impl Work {
    pub fn new(held: Held, kind: Kind, trace_id: Option<String>, steps: Vec<Step>) -> Self {
        Self {
            held,
            kind,
            trace_id,
            unrecognised: None,
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

/// Returns the bytes of keys and values.
pub(super) fn bytes_of(steps: &[Step]) -> usize {
    let items = steps.iter().flat_map(|step| &step.items);
    items.map(|item| item.key.len() + item.value.len()).sum()
}
