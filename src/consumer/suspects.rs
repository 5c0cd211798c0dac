//! Messages whose call to Redis fails while Redis is well: each is tried alone, and blamed only if
//! it fails alone.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::RwLock;

/// Failures alone, while the probe succeeded before each, after which a message is to blame.
const BLAMED_AT: u32 = 2;
/// Messages remembered.
const MOST: usize = 1_000;
/// Messages to blame without a success between them, after which the cause is taken to be elsewhere: a proxy that cuts
/// calls, for example. Redis is then given time after each further failure.
const BLAMED_IN_A_ROW: u32 = 3;

/// Shared by all consumers, as they share one connection: a call that breaks it fails others too.
#[derive(Debug, Default)]
pub struct Suspects {
    /// Failures alone, by message id.
    failures: Mutex<HashMap<String, u32>>,
    /// Messages that were found to be to blame since a call succeeded.
    blamed: AtomicU32,
    /// Read by ordinary calls, written by one that is made alone.
    pub calls: RwLock<()>,
}

impl Suspects {
    /// A message failed alone. Returns whether it is to blame.
    pub fn failed_alone(&self, message_id: &str) -> bool {
        let mut failures = self.lock();
        if failures.len() >= MOST && !failures.contains_key(message_id) {
            failures.clear();
        }
        let count = failures.entry(message_id.to_owned()).or_default();
        *count = count.saturating_add(1);
        if *count == BLAMED_AT {
            self.blamed.fetch_add(1, Ordering::Relaxed);
        }
        *count >= BLAMED_AT
    }

    /// A call succeeded.
    pub fn succeeded(&self) {
        self.blamed.store(0, Ordering::Relaxed);
    }

    /// Whether a failure that may be a call's own is taken for that, and not for one of Redis.
    pub fn are_few(&self) -> bool {
        self.blamed.load(Ordering::Relaxed) < BLAMED_IN_A_ROW
    }

    /// Whether a message failed alone when it was received before.
    pub fn knows(&self, message_id: &str) -> bool {
        self.lock().contains_key(message_id)
    }

    /// It did not fail, or is gone.
    pub fn forget(&self, message_id: &str) {
        self.lock().remove(message_id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, u32>> {
        self.failures
            .lock()
            .unwrap_or_else(|lock| lock.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_blamed_for_failing_alone_twice_and_remembered() {
        let suspects = Suspects::default();
        assert!(!suspects.knows("a"));
        assert!(!suspects.failed_alone("a"));
        assert!(suspects.knows("a") && !suspects.knows("b"));
        assert!(suspects.failed_alone("a"));
        assert!(suspects.failed_alone("a"), "when it is received again too");
        suspects.forget("a");
        assert!(!suspects.failed_alone("a"));
    }

    #[test]
    fn many_in_a_row_are_not_taken_for_messages_of_their_own() {
        let suspects = Suspects::default();
        let blame = |message_id: &str| {
            suspects.failed_alone(message_id);
            suspects.failed_alone(message_id);
        };
        blame("a");
        blame("b");
        blame("a");
        assert!(suspects.are_few());
        blame("c");
        assert!(!suspects.are_few());
        suspects.succeeded();
        assert!(suspects.are_few());
    }

    #[test]
    fn no_more_are_remembered_than_fit() {
        let suspects = Suspects::default();
        for number in 0..3 * MOST {
            suspects.failed_alone(&number.to_string());
        }
        assert!(suspects.lock().len() <= MOST);
    }
}
