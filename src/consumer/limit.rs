//! Keeps one bad sender from filling the log.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lets a number of lines through each minute.
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

    /// `Some` if this line may be written, with how many were not since the last.
    pub fn allow(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(|lock| lock.into_inner());
        let (since, said, unsaid) = &mut *state;
        if since.elapsed() >= Duration::from_secs(60) {
            (*since, *said) = (Instant::now(), 0);
        }
        if *said >= self.per_minute {
            *unsaid += 1;
            return None;
        }
        *said += 1;
        Some(std::mem::take(unsaid))
    }
}

/// Kinds of event that are not ours, each named once.
#[derive(Debug, Default)]
pub struct Unknown(Mutex<HashSet<String>>);

impl Unknown {
    const MOST: usize = 100;
    const LONGEST: usize = 64;

    pub fn say_once(&self, name: &str) {
        let mut seen = self.0.lock().unwrap_or_else(|lock| lock.into_inner());
        let name: String = name.chars().take(Self::LONGEST).collect();
        if seen.len() < Self::MOST && seen.insert(name.clone()) {
            tracing::info!(
                event = name,
                "events of this kind change nothing in Redis and are acknowledged"
            );
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
