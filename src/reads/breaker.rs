//! A circuit breaker: after failures in a row nothing is tried for a while, then one try decides.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Breaker {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    open_until: Option<Instant>,
    pause: Duration,
    is_probing: bool,
}

/// A try that was let through. Without a verdict it counts as not made.
pub struct Try<'a> {
    breaker: &'a Breaker,
}

impl Breaker {
    /// Lets a try through, unless tries of late have failed.
    pub fn admit(&self) -> Option<Try<'_>> {
        let mut state = self.lock();
        if let Some(until) = state.open_until {
            if state.is_probing || Instant::now() < until {
                return None;
            }
            state.is_probing = true;
        }
        Some(Try { breaker: self })
    }

    /// Whether a try would be let through, or one is under way that decides.
    pub fn is_open(&self) -> bool {
        self.lock().open_until.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|lock| lock.into_inner())
    }
}

impl Try<'_> {
    pub fn succeeded(self) {
        *self.breaker.lock() = State::default();
    }

    /// It failed; `pause`: how long the other side asks to be left alone.
    pub fn failed(self, pause: Option<Duration>) {
        let mut state = self.breaker.lock();
        state.failures = state.failures.saturating_add(1);
        state.is_probing = false;
        if state.failures < FAILURES && state.open_until.is_none() && pause.is_none() {
            return;
        }
        let doubled = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        state.pause = doubled;
        let jittered = doubled.mul_f64(0.8 + fastrand::f64() * 0.4);
        let pause = pause.map_or(jittered, |pause| pause.min(LONGEST_PAUSE).max(jittered));
        state.open_until = Some(Instant::now() + pause);
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        // After a verdict there is nothing left to take back.
        self.breaker.lock().is_probing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_try_closes_it() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES {
            breaker.admit().expect("it is closed").failed(None);
        }
        assert!(breaker.admit().is_none() && breaker.is_open());
        breaker.lock().open_until = Some(Instant::now());
        let probe = breaker.admit().expect("its pause is over");
        assert!(breaker.admit().is_none(), "one try at a time");
        probe.failed(None);
        assert!(breaker.admit().is_none(), "its next pause is longer");
        breaker.lock().open_until = Some(Instant::now());
        breaker.admit().expect("its pause is over").succeeded();
        assert!(breaker.admit().is_some() && !breaker.is_open());
    }

    #[test]
    fn a_success_between_failures_counts() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 0..FAILURES - 1 {
                breaker.admit().expect("it is closed").failed(None);
            }
            breaker.admit().expect("it is closed").succeeded();
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn a_try_that_is_given_up_leaves_it_as_it_was() {
        let breaker = Breaker::default();
        breaker
            .admit()
            .expect("closed")
            .failed(Some(Duration::ZERO));
        breaker.lock().open_until = Some(Instant::now());
        drop(breaker.admit().expect("its pause is over"));
        assert!(breaker.admit().is_some());
    }
}
