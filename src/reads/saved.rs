//! Gives the copy to a snapshot, and puts it back at a start: so that a process answers while Redis and the Edge API are
//! both away.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Reads;
use super::copy::Slot;
use crate::clock;
use crate::keys::Owner;
use crate::message::Millis;
use crate::reader::State;

/// The last known state of an owner.
#[derive(Debug, Serialize, Deserialize)]
pub struct CopyEntry<'a> {
    /// Entries of another format are left out.
    format: u8,
    #[serde(borrow)]
    customer: Cow<'a, str>,
    #[serde(borrow)]
    resource: Option<Cow<'a, str>>,
    /// When it was last known to be true.
    pub known_at: Millis,
    state: String,
}

/// The format of `State::to_bytes`.
const FORMAT: u8 = 1;

impl CopyEntry<'_> {
    pub fn owner(&self) -> Owner<'_> {
        Owner {
            customer: &self.customer,
            resource: self.resource.as_deref(),
        }
    }

    /// Returns the state; `None` if another version wrote it in another format.
    pub fn state(&self) -> Option<State> {
        let bytes = STANDARD_NO_PAD.decode(&self.state).ok();
        let state = bytes.and_then(|bytes| State::from_bytes(&bytes));
        state.filter(|_| self.format == FORMAT)
    }
}

impl Reads {
    /// Gives all owners that may still be answered to `put`.
    pub fn entries<E>(
        &self,
        mut put: impl FnMut(&CopyEntry<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let now = clock::now_ms();
        for (key, slot) in self.copy.all() {
            let owner = key.owner();
            let age = self.age(owner, &slot);
            if slot.is_unknown || self.ttl.is_some_and(|ttl| age >= ttl) {
                continue;
            }
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            put(&CopyEntry {
                format: FORMAT,
                customer: owner.customer.into(),
                resource: owner.resource.map(Cow::from),
                known_at: now.saturating_sub(age),
                state: STANDARD_NO_PAD.encode(slot.state.to_bytes()),
            })?;
        }
        Ok(())
    }

    /// Puts an entry of a snapshot back. It is not fresh until it is read again.
    pub fn restore(&self, entry: &CopyEntry<'_>) {
        let Some(state) = entry.state() else {
            return;
        };
        let ago = clock::now_ms().saturating_sub(entry.known_at);
        let mark = self.loader.tracked.past(ago);
        self.copy.keep(
            entry.owner(),
            Slot::new(state, mark, self.copy.next_order()),
        );
    }

    /// Counts the loads since the start.
    pub fn loads(&self) -> u64 {
        self.copy.loads()
    }
}
