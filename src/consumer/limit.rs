//! Limits log lines, so that one bad sender cannot fill the log.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Allows a number of lines per minute.
#[derive(Debug)]
pub struct Limit {
    state: Mutex<(Instant, u32, u64)>,
    per_minute: u32,
}

impl Limit {
    pub fn per_minute(per_minute: u32) -> Self {
        Self {
            state: Mutex::new((Instant::now(), 0, 0)),
            per_minute,
        }
    }

    /// Returns `Some` if this line may be written, with the number of lines dropped since the last one.
    pub fn allow(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(|lock| lock.into_inner());
        let (since, logged, suppressed) = &mut *state;
        if since.elapsed() >= Duration::from_secs(60) {
            (*since, *logged) = (Instant::now(), 0);
        }
        if *logged >= self.per_minute {
            *suppressed += 1;
            return None;
        }
        *logged += 1;
        Some(std::mem::take(suppressed))
    }
}

/// Messages that change no keys; each kind is logged once.
#[derive(Debug, Default)]
pub struct Unknown {
    logged: Mutex<HashSet<String>>,
    /// The number of kept messages of each unrecognised kind.
    kept: Mutex<HashMap<String, u32>>,
}

impl Unknown {
    const MAX_KINDS: usize = 100;
    const MAX_NAME_LENGTH: usize = 64;
    /// Maximum number of kept messages of each unrecognised kind.
    const MAX_KEPT: u32 = 10;

    /// Logs a kind of event that changes nothing.
    pub fn say_once(&self, name: &str) {
        let name = self.shown(name);
        if self.is_new(&name) {
            tracing::info!(
                event = name,
                "events of this kind change nothing in Redis and are acknowledged"
            );
        }
    }

    /// Logs a message that AWS sends by itself.
    pub fn warn_once(&self, notice: &str) {
        if self.is_new(notice) {
            tracing::warn!(notice, "a message that AWS itself sent is acknowledged");
        }
    }

    fn is_new(&self, text: &str) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(|lock| lock.into_inner());
        logged.len() < Self::MAX_KINDS && logged.insert(text.to_owned())
    }

    /// Counts a message of an unrecognised kind to keep, starting at 1; `None`
    /// if enough of them are kept.
    pub fn count(&self, name: &str) -> Option<u32> {
        let name = self.shown(name);
        let mut kept = self.kept.lock().unwrap_or_else(|lock| lock.into_inner());
        if kept.len() >= Self::MAX_KINDS && !kept.contains_key(&name) {
            return None;
        }
        let count = kept.entry(name).or_default();
        (*count < Self::MAX_KEPT).then(|| {
            *count += 1;
            *count
        })
    }

    /// Takes back a count: the message could not be kept.
    pub fn forget(&self, name: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(|lock| lock.into_inner());
        if let Some(count) = kept.get_mut(&self.shown(name)) {
            *count = count.saturating_sub(1);
        }
    }

    /// Returns the name of a kind, if it is safe to log.
    pub fn shown(&self, name: &str) -> String {
        let is_fit = |it: char| it.is_ascii_alphanumeric() || " ._-:/".contains(it);
        match name.is_empty() || name.len() > Self::MAX_NAME_LENGTH || !name.chars().all(is_fit) {
            true => "(unnamed)".to_owned(),
            false => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_said_is_counted() {
        let limit = Limit::per_minute(2);
        assert_eq!(
            [limit.allow(), limit.allow(), limit.allow(), limit.allow()],
            [Some(0), Some(0), None, None]
        );
        limit.state.lock().unwrap().0 -= Duration::from_secs(61);
        assert_eq!(limit.allow(), Some(2));
        assert_eq!(limit.allow(), Some(0));
    }
}
