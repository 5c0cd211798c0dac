//! Reads what is stored of an owner, on one connection with notifications of changes.
//!
//! A *session* is one connection to the primary. Reads, the proof that it is alive and the server's news of changes
//! (`CLIENT TRACKING ON BCAST`) go over the same one, so that all of them come from one server. When it is lost,
//! nothing that was read over it is fresh any more, and only what the next session reads is.
//!
//! A value is fresh if the server would have notified its change. So that no change slips between a read and its mark:
//!
//! - The mark is taken **before** the command is sent. News are dated when they arrive. A read that was in flight when
//!   news of its customer came is therefore older than the change, whichever of the two is processed first.
//! - News that arrive after the value was kept are later than its mark, too.
//! - One task takes news and replies from the connection, news first. So once a reply is handed out, the changes
//!   before it are known, but for one case: Redis handled the change and the read in one turn, then it writes the
//!   news last, and they may arrive a moment later. Load an owner once at a time, and answers still never go back:
//!   what was found not to be fresh never is fresh again.
//! - A session must have answered within the last 1.5 s. A link may be half open, and a primary may be cut off from
//!   those that have chosen another; that long, and not longer, a change may go unnoticed.
//!
//! There is no record by customer: changes are kept in a table of slots that customers share (see `proof`). A key that
//! expires is notified when Redis removes it, which may be a moment after its time.

mod follow;
mod following;
mod proof;
mod read;
mod session;
mod wire;

use std::time::Duration;

use tokio::sync::watch;

use super::{StoreError, Watched};
use crate::config::RedisConfig;
use crate::keys::{Keys, Owner};
use crate::reader::Stored;
pub use following::Following;
use following::{ANSWER_TIMEOUT, Shared, Up, is_of_moving_keys};
pub(super) use proof::Proof;

/// Reads what is stored of owners, and knows how long it holds. Clones share all of it.
#[derive(Clone)]
pub enum Tracked {
    Redis(Following),
    Memory(Watched),
}

/// When a value was read, and over which connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Before the command was sent.
    pub(super) at: u64,
    /// When it was last known to be true, as far as its own source knows.
    pub(super) known: u64,
    /// 0: over none.
    pub(super) session: u64,
}

impl Mark {
    /// Returns this mark of a value that another source confirmed after `mark`.
    pub fn confirmed(self, mark: Self) -> Self {
        Self {
            known: self.known.max(mark.known),
            ..self
        }
    }
}

/// How changes are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tracking {
    /// The server notifies them.
    On,
    /// It refuses to, and why: what was read is fresh for a fixed time.
    Refused(String),
    /// It cannot be read, and why.
    Away(String),
}

/// The time at the start of the process, in marks: what was learnt before it, up to ten years ago, has a mark too.
pub(super) const BEGINNING_MICROS: u64 = 10 * 365 * 24 * 60 * 60 * 1_000_000;

impl Tracked {
    /// Begins to connect and keeps trying; never waits. `fresh`: how long a read counts as fresh where the server
    /// does not tell of changes.
    pub fn start(redis: &RedisConfig, keys: Keys, fresh: Duration) -> anyhow::Result<Self> {
        Following::start(redis, keys, fresh).map(Self::Redis)
    }

    /// Returns what is stored, and a mark that says how long it holds. Fails at once while Redis is known to be away,
    /// and within a second otherwise.
    pub async fn read(&self, owner: Owner<'_>) -> Result<(Stored, Mark), StoreError> {
        match self {
            Self::Redis(following) => following.read(owner).await,
            Self::Memory(watched) => Ok(watched.read(owner)),
        }
    }

    /// Returns a mark for a state that is learnt elsewhere from now on: take it before the fetch begins.
    pub fn mark(&self) -> Mark {
        match self {
            Self::Redis(following) => following.mark(),
            Self::Memory(watched) => watched.mark(),
        }
    }

    /// Returns the mark of a value that was last known to be true so many milliseconds ago, before a restart.
    pub fn past(&self, ago_ms: u64) -> Mark {
        let now = match self {
            Self::Redis(following) => following.now(),
            Self::Memory(watched) => watched.now(),
        };
        let at = now.saturating_sub(ago_ms.saturating_mul(1000));
        Mark {
            at,
            known: at,
            session: 0,
        }
    }

    /// The age of the value, see [`Self::age`], if nothing has changed since the mark: the store would have notified
    /// it, or, where Redis does not, too little time has passed.
    pub fn fresh_age(&self, customer: &str, mark: Mark) -> Option<Duration> {
        match self {
            Self::Redis(following) => following.fresh_age(customer, mark),
            Self::Memory(watched) => watched.fresh_age(customer, mark),
        }
    }

    /// Whether a change of the customer was notified since the mark.
    pub fn has_changed(&self, customer: &str, mark: Mark) -> bool {
        match self {
            Self::Redis(following) => following.has_changed(customer, mark),
            Self::Memory(watched) => watched.has_changed(customer, mark),
        }
    }

    /// Whether the changes of the customer were followed without a gap since the mark, and none was notified.
    pub fn has_followed(&self, customer: &str, mark: Mark) -> bool {
        match self {
            Self::Redis(following) => following.has_followed(customer, mark),
            // What it holds changes by this process alone.
            Self::Memory(watched) => !watched.has_changed(customer, mark),
        }
    }

    /// How long ago the value was last known to be true; zero while the store would have notified a change.
    pub fn age(&self, customer: &str, mark: Mark) -> Duration {
        match self {
            Self::Redis(following) => following.age(customer, mark),
            Self::Memory(watched) => watched.age(customer, mark),
        }
    }

    /// Whether Redis answers, or the queue proves the state in memory.
    pub fn is_up(&self) -> bool {
        match self {
            Self::Redis(following) => following.is_up(),
            Self::Memory(watched) => watched.is_proven(),
        }
    }

    /// Whether the state is in this process.
    pub fn is_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Whether what was read with this mark was proven then. What Redis returns is.
    pub fn proves(&self, mark: Mark) -> bool {
        !self.is_memory() || mark.session != 0
    }

    /// Whether a state in this process holds customers that may be answered, at most `ttl` after the last proof.
    pub fn holds_any(&self, ttl: Option<Duration>) -> bool {
        match self {
            Self::Redis(_) => false,
            Self::Memory(watched) => watched.holds_any(ttl),
        }
    }

    /// How changes are known now.
    pub fn tracking(&self) -> Tracking {
        match self {
            Self::Redis(following) => following.tracking(),
            Self::Memory(watched) => watched.tracking(),
        }
    }

    /// Changes of customers that were notified.
    pub fn invalidations(&self) -> u64 {
        match self {
            Self::Redis(following) => following.invalidations(),
            Self::Memory(watched) => watched.changes(),
        }
    }

    /// Sessions that were lost.
    pub fn losses(&self) -> u64 {
        match self {
            Self::Redis(following) => following.losses(),
            Self::Memory(_) => 0,
        }
    }

    /// Changes each time that Redis is there again after it was away, and each time that its keys were flushed: what
    /// it holds may be less than before. `None`: there is no Redis.
    pub fn returns(&self) -> Option<watch::Receiver<u64>> {
        match self {
            Self::Redis(following) => Some(following.returns()),
            Self::Memory(_) => None,
        }
    }

    /// Closes the connection. Redis is away from then on.
    pub async fn close(&self) {
        if let Self::Redis(following) = self {
            following.close().await;
        }
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
