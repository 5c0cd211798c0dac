//! Finds messages whose call to Redis fails while Redis takes other writes: each is tried alone, and blamed only
//! if it fails alone.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::RwLock;

/// Failures of a message alone, each after a successful probe, after which it is blamed.
const BLAMED_AT: u32 = 2;
/// Maximum number of messages remembered.
const MAX_SUSPECTS: usize = 1_000;
/// Messages blamed in a row without a success, after which the cause is assumed elsewhere, for example a proxy that cuts
/// calls. Each further failure then delays the next opening of the gate.
const BLAMED_IN_A_ROW: u32 = 3;

/// The suspects of all consumers, which share one connection: a call that breaks it fails other calls too.
#[derive(Debug, Default)]
pub struct Suspects {
    /// Failures alone, by message id.
    failures: Mutex<HashMap<String, u32>>,
    /// Messages blamed since the last successful call.
    blamed: AtomicU32,
    /// Read-locked by ordinary calls, write-locked by a call that runs alone.
    pub calls: RwLock<()>,
}

impl Suspects {
    /// Records that a message failed alone. Returns whether it is blamed.
    pub fn failed_alone(&self, message_id: &str) -> bool {
        let mut failures = self.lock();
        if failures.len() >= MAX_SUSPECTS && !failures.contains_key(message_id) {
            failures.clear();
        }
        let count = failures.entry(message_id.to_owned()).or_default();
        *count = count.saturating_add(1);
        if *count == BLAMED_AT {
            self.blamed.fetch_add(1, Ordering::Relaxed);
        }
        *count >= BLAMED_AT
    }

    /// Records a successful call.
    pub fn succeeded(&self) {
        self.blamed.store(0, Ordering::Relaxed);
    }

    /// Returns whether a failure that the call may have caused counts as such, and not as one of Redis.
    pub fn are_few(&self) -> bool {
        self.blamed.load(Ordering::Relaxed) < BLAMED_IN_A_ROW
    }

    /// Returns whether a message failed alone in an earlier delivery.
    pub fn knows(&self, message_id: &str) -> bool {
        self.lock().contains_key(message_id)
    }

    /// Forgets a message that succeeded or ended.
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
        for number in 0..3 * MAX_SUSPECTS {
            suspects.failed_alone(&number.to_string());
        }
        assert!(suspects.lock().len() <= MAX_SUSPECTS);
    }
}
