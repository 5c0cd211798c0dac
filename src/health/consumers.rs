//! Tracks the state of each consumer, for the watchdog and `/status`.

use std::sync::{Mutex, MutexGuard};

use serde::Serialize;
use tokio::time::Instant;

/// The current state of a consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Starting,
    WaitingForRedis,
    /// Waits until fewer bytes are in flight.
    WaitingForRoom,
    Receiving,
    /// Sleeps: the queue is empty, and other consumers poll it.
    Sleeping,
    Working,
    /// Pauses after a failed receive.
    BackingOff,
}

/// The state of one consumer, readable from outside.
#[derive(Debug)]
pub struct ConsumerView(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    state: State,
    since: Instant,
    progress: Instant,
    messages: u64,
    last_error: Option<String>,
}

/// A consumer in `/status`.
#[derive(Debug, Serialize)]
pub struct ConsumerStatus {
    pub state: State,
    pub since_secs: u64,
    pub messages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Default for ConsumerView {
    fn default() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Inner {
            state: State::Starting,
            since: now,
            progress: now,
            messages: 0,
            last_error: None,
        }))
    }
}

impl ConsumerView {
    /// Also counts as progress.
    pub fn set_state(&self, state: State) {
        let now = Instant::now();
        let mut inner = self.lock();
        if inner.state != state {
            (inner.state, inner.since) = (state, now);
        }
        inner.progress = now;
    }

    /// Records progress after each step: a consumer without progress for too long is replaced.
    pub fn progress(&self) {
        self.lock().progress = Instant::now();
    }

    pub fn received(&self, messages: usize) {
        self.lock().messages += messages as u64;
    }

    pub fn failed(&self, error: String) {
        self.lock().last_error = Some(error);
    }

    /// Returns the time since the last progress.
    pub fn idle_for(&self) -> std::time::Duration {
        self.lock().progress.elapsed()
    }

    pub fn status(&self) -> ConsumerStatus {
        let inner = self.lock();
        ConsumerStatus {
            state: inner.state,
            since_secs: inner.since.elapsed().as_secs(),
            messages: inner.messages,
            last_error: inner.last_error.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(|lock| lock.into_inner())
    }
}
