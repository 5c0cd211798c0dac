//! Follows the primary of Redis: which session is in use, and what the server notified on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::session::Session;
use super::wire::{self, Notification};
use super::{BEGINNING_MICROS, Mark, Proof, Tracking, follow, micros, proof, read};
use crate::config::RedisConfig;
use crate::keys::{Keys, Owner};
use crate::reader::Stored;
use crate::store::{StoreError, connect};

/// Follows the primary of Redis.
#[derive(Clone)]
pub struct Following {
    shared: Arc<Shared>,
    closing: CancellationToken,
    _open: Arc<DropGuard>,
}

/// A read or a proof of life that has no answer by then has failed.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct Shared {
    pub(super) keys: Keys,
    pub(super) proof: Proof,
    /// Of all times in marks.
    pub(super) beginning: Instant,
    state: watch::Sender<State>,
    pub(super) returns: watch::Sender<u64>,
    pub(super) sessions: AtomicU64,
    pub(super) invalidations: AtomicU64,
    pub(super) losses: AtomicU64,
}

enum State {
    Up(Arc<Up>),
    Away(StoreError),
}

/// A session in use.
pub(super) struct Up {
    pub(super) id: u64,
    pub(super) session: Arc<Session>,
    /// Why the server does not tell of changes, if it does not.
    pub(super) refused: Option<StoreError>,
}

impl Following {
    /// Begins to connect and keeps trying.
    pub(super) fn start(redis: &RedisConfig, keys: Keys, fresh: Duration) -> anyhow::Result<Self> {
        // What is wrong with certificates is an error at start.
        connect::check(redis)?;
        let shared = Arc::new(Shared {
            keys,
            proof: Proof::new(micros(fresh), proof::PROVEN_MICROS),
            beginning: Instant::now(),
            state: watch::Sender::new(State::Away(StoreError::looking())),
            returns: watch::Sender::new(0),
            sessions: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
            losses: AtomicU64::new(0),
        });
        let closing = CancellationToken::new();
        let following = follow::follow(shared.clone(), redis.clone(), closing.clone());
        tokio::spawn(following);
        Ok(Self {
            shared,
            _open: Arc::new(closing.clone().drop_guard()),
            closing,
        })
    }

    /// Returns the time of now, in the microseconds of marks.
    pub(super) fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Returns what is stored, and a mark that says how long it holds. Fails at once while Redis is known to be
    /// away, and within a second otherwise.
    pub(super) async fn read(&self, owner: Owner<'_>) -> Result<(Stored, Mark), StoreError> {
        let up = self.shared.up()?;
        let mark = || {
            let at = self.shared.now();
            Mark {
                at,
                known: at,
                session: up.id,
            }
        };
        let reading = read::read(&up.session.wire, &self.shared.keys, owner, mark);
        let read = timeout(ANSWER_TIMEOUT, reading).await;
        let read = read.unwrap_or_else(|_| Err(StoreError::timeout()));
        if let Err(error) = &read
            && is_of_session(error)
        {
            self.shared.withdraw(&up, error.clone());
        }
        read
    }

    /// A mark for a state that is learnt elsewhere from now on: take it before the fetch begins.
    pub(super) fn mark(&self) -> Mark {
        self.shared.proof.mark(self.shared.now())
    }

    /// The age of the value if nothing has changed since the mark: Redis would have notified it, or, where it does not,
    /// too little time has passed.
    pub(super) fn fresh_age(&self, customer: &str, mark: Mark) -> Option<Duration> {
        let now = self.shared.now();
        let age = self.shared.proof.fresh_age(customer, mark, now);
        age.map(Duration::from_micros)
    }

    /// Whether a change of the customer was notified since the mark.
    pub(super) fn has_changed(&self, customer: &str, mark: Mark) -> bool {
        self.shared.proof.has_changed(customer, mark)
    }

    /// Whether the session is the one of the mark, and has notified no change of the customer since.
    pub(super) fn has_followed(&self, customer: &str, mark: Mark) -> bool {
        let proof = &self.shared.proof;
        proof.is_of_session(mark) && !proof.has_changed(customer, mark)
    }

    /// How long ago the value was last known to be true; zero while Redis would have notified a change.
    pub(super) fn age(&self, customer: &str, mark: Mark) -> Duration {
        let now = self.shared.now();
        Duration::from_micros(self.shared.proof.age(customer, mark, now))
    }

    /// Whether Redis answers.
    pub(super) fn is_up(&self) -> bool {
        self.shared.up().is_ok()
    }

    /// How changes are known now.
    pub(super) fn tracking(&self) -> Tracking {
        match &*self.shared.state.borrow() {
            State::Away(error) => Tracking::Away(error.to_string()),
            State::Up(up) => match &up.refused {
                Some(error) => Tracking::Refused(error.to_string()),
                None => Tracking::On,
            },
        }
    }

    /// Changes of customers' keys that the server notified.
    pub(super) fn invalidations(&self) -> u64 {
        self.shared.invalidations.load(Ordering::Relaxed)
    }

    /// Sessions that were lost.
    pub(super) fn losses(&self) -> u64 {
        self.shared.losses.load(Ordering::Relaxed)
    }

    /// Changes each time that Redis is there again after it was away, and each time that its keys were flushed: what
    /// it holds may be less than before.
    pub(super) fn returns(&self) -> watch::Receiver<u64> {
        self.shared.returns.subscribe()
    }

    /// Closes the connection. Redis is away from then on.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        if let Ok(up) = self.shared.up() {
            self.shared.withdraw(&up, wire::lost());
            up.session.wire.closed().await;
        }
    }
}

impl Shared {
    pub(super) fn now(&self) -> u64 {
        BEGINNING_MICROS + micros(self.beginning.elapsed())
    }

    pub(super) fn up(&self) -> Result<Arc<Up>, StoreError> {
        match &*self.state.borrow() {
            State::Up(up) => Ok(up.clone()),
            State::Away(error) => Err(error.clone()),
        }
    }

    /// Takes a session into use, which answered what it was asked at `at`.
    pub(super) fn begin(
        &self,
        session: Arc<Session>,
        refused: Option<StoreError>,
        at: u64,
    ) -> Arc<Up> {
        let up = Arc::new(Up {
            id: self.sessions.fetch_add(1, Ordering::Relaxed) + 1,
            session,
            refused,
        });
        self.state.send_modify(|state| {
            self.proof.begin(up.id, up.refused.is_none(), at);
            *state = State::Up(up.clone());
        });
        self.returns.send_modify(|count| *count += 1);
        up
    }

    /// Takes a session out of use at once, if it still is in use.
    pub(super) fn withdraw(&self, failed: &Up, error: StoreError) {
        self.state.send_if_modified(|state| match state {
            State::Up(up) if Arc::ptr_eq(&up.session, &failed.session) => {
                self.proof.end();
                self.losses.fetch_add(1, Ordering::Relaxed);
                *state = State::Away(error);
                true
            }
            _ => false,
        });
        failed.session.wire.close();
    }

    /// Takes whichever session there is out of use. Returns why none is.
    pub(super) fn end(&self, error: StoreError) -> StoreError {
        if let Ok(up) = self.up() {
            self.withdraw(&up, error.clone());
        }
        self.up().err().unwrap_or(error)
    }

    /// Says why there is no session.
    pub(super) fn set_away(&self, why: StoreError) {
        self.end(why.clone());
        self.state.send_replace(State::Away(why));
    }

    pub(super) fn notify(&self, notification: Notification) {
        let at = self.now();
        match notification {
            Notification::Flushed => {
                self.proof.flush(at);
                self.invalidations.fetch_add(1, Ordering::Relaxed);
                self.returns.send_modify(|count| *count += 1);
            }
            Notification::Changed(names) => {
                for name in names {
                    let name = String::from_utf8_lossy(&name);
                    if let Some(key) = self.keys.read(&name) {
                        // A resource is only valid beside its customer's time, so both are one.
                        self.proof.change(key.owner.customer, at);
                        self.invalidations.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

/// Whether an error speaks of the connection or of the server, rather than of the keys that were asked for.
fn is_of_session(error: &StoreError) -> bool {
    let text = error.to_string();
    let of_keys = ["NOPERM", "ERR", "CROSSSLOT", "WRONGTYPE", read::CHANGING];
    !is_of_moving_keys(error) && !of_keys.iter().any(|start| text.starts_with(start))
}

/// Whether keys are on their way to another node of a cluster.
pub(super) fn is_of_moving_keys(error: &StoreError) -> bool {
    let text = error.to_string();
    ["ASK", "TRYAGAIN"]
        .iter()
        .any(|code| text.starts_with(code))
}
