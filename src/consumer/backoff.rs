//! Computes how long a consumer waits after a failed receive.

use std::time::{Duration, Instant};

use crate::queue::{QueueError, QueueErrorKind};

/// An exponential back-off with jitter, depending on the error; the SDK's own retries are off.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
    since: Option<Instant>,
}

impl Backoff {
    /// Returns the pause after a failure.
    pub fn after(&mut self, error: &QueueError) -> Duration {
        self.since.get_or_insert_with(Instant::now);
        let (base, most) = bounds(error.kind);
        let ceiling = base.saturating_mul(1 << self.failures.min(10)).min(most);
        self.failures = self.failures.saturating_add(1);
        // Never less than half: jitter alone could make a hot loop.
        ceiling.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Resets after a success, and returns the duration of the outage, if there was one.
    pub fn reset(&mut self) -> Option<Duration> {
        self.failures = 0;
        Some(self.since.take()?.elapsed())
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }
}

fn bounds(kind: QueueErrorKind) -> (Duration, Duration) {
    let ms = Duration::from_millis;
    match kind {
        // An operator must fix it, and requests cost money; but the worker should notice the fix soon.
        QueueErrorKind::CredentialsExpired
        | QueueErrorKind::Credentials
        | QueueErrorKind::AccessDenied
        | QueueErrorKind::NoQueue
        | QueueErrorKind::Clock
        | QueueErrorKind::Kms
        | QueueErrorKind::Foreign
        | QueueErrorKind::Proxy => (ms(1_000), ms(15_000)),
        QueueErrorKind::Throttled => (ms(1_000), ms(10_000)),
        QueueErrorKind::Timeout | QueueErrorKind::Unreachable | QueueErrorKind::Failed => {
            (ms(200), ms(5_000))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_ceiling_and_start_over_after_a_success() {
        let mut backoff = Backoff::default();
        let error = QueueError {
            kind: QueueErrorKind::Failed,
            detail: String::new(),
        };
        let pauses: Vec<_> = (0..12).map(|_| backoff.after(&error).as_millis()).collect();
        assert!((100..=200).contains(&pauses[0]), "{pauses:?}");
        assert!((400..=800).contains(&pauses[2]), "{pauses:?}");
        assert!((2_500..=5_000).contains(&pauses[11]), "{pauses:?}");
        assert!(backoff.reset().is_some());
        assert_eq!(backoff.reset(), None);
        assert!(backoff.after(&error).as_millis() <= 200);
    }
}
