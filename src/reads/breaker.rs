//! A circuit breaker: after failures in a row, or one that took long, nothing is tried for a while, then one try
//! decides.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES_TO_OPEN: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A failure that took that long opens it at once: the next one would keep its asker waiting as long.
const SLOW_FAILURE: Duration = Duration::from_secs(2);

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
    /// Counts how often it has opened or closed.
    generation: u64,
}

/// A try that was let through. Without a verdict it counts as not made.
pub struct Attempt<'a> {
    breaker: &'a Breaker,
    began: Instant,
    /// The generation of the breaker that let it through.
    generation: u64,
    is_probe: bool,
}

impl Breaker {
    /// Lets a try through, unless tries of late have failed.
    pub fn admit(&self) -> Option<Attempt<'_>> {
        let mut state = self.lock();
        let now = Instant::now();
        if let Some(until) = state.open_until {
            if state.is_probing || now < until {
                return None;
            }
            state.is_probing = true;
        }
        Some(Attempt {
            breaker: self,
            began: now,
            generation: state.generation,
            is_probe: state.is_probing,
        })
    }

    /// Whether the last tries failed, and none has succeeded since.
    pub fn is_open(&self) -> bool {
        self.lock().open_until.is_some()
    }

    /// Whether a try would be turned away now: during a pause, and while one try decides.
    pub fn is_paused(&self) -> bool {
        let state = self.lock();
        let until = state.open_until;
        until.is_some_and(|until| state.is_probing || Instant::now() < until)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|lock| lock.into_inner())
    }
}

impl Attempt<'_> {
    pub fn succeeded(self) {
        let mut state = self.breaker.lock();
        let generation = state.generation + u64::from(state.open_until.is_some());
        *state = State {
            generation,
            ..State::default()
        };
    }

    /// It failed; `pause`: how long the other side asks to be left alone.
    pub fn failed(self, pause: Option<Duration>) {
        let mut state = self.breaker.lock();
        // Many that were under way when it opened fail together: that is one failure.
        if self.generation != state.generation {
            return;
        }
        state.failures = state.failures.saturating_add(1);
        let is_long = self.began.elapsed() >= SLOW_FAILURE;
        if state.failures < FAILURES_TO_OPEN && !self.is_probe && pause.is_none() && !is_long {
            return;
        }
        state.generation += 1;
        state.is_probing = false;
        let doubled = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        state.pause = doubled;
        let jittered = doubled.mul_f64(0.8 + fastrand::f64() * 0.4);
        let pause = pause.map_or(jittered, |pause| pause.min(LONGEST_PAUSE).max(jittered));
        state.open_until = Some(Instant::now() + pause);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut state = self.breaker.lock();
        // After a verdict there is nothing left to take back.
        if self.is_probe && self.generation == state.generation {
            state.is_probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_try_closes_it() {
        let breaker = Breaker::default();
        for _ in 0..FAILURES_TO_OPEN {
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

    /// A process that gets no questions would else never learn that the other side is back.
    #[test]
    fn after_its_pause_it_takes_a_try_although_none_has_succeeded() {
        let breaker = Breaker::default();
        assert!(!breaker.is_paused());
        let pause = Some(LONGEST_PAUSE);
        breaker.admit().expect("it is closed").failed(pause);
        assert!(breaker.is_paused() && breaker.is_open());
        breaker.lock().open_until = Some(Instant::now());
        assert!(!breaker.is_paused() && breaker.is_open());
        let probe = breaker.admit().expect("its pause is over");
        assert!(breaker.is_paused(), "one try decides");
        drop(probe);
        assert!(!breaker.is_paused());
        breaker.admit().expect("its pause is over").succeeded();
        assert!(!breaker.is_paused() && !breaker.is_open());
    }

    #[test]
    fn a_success_between_failures_counts() {
        let breaker = Breaker::default();
        for _ in 0..3 {
            for _ in 0..FAILURES_TO_OPEN - 1 {
                breaker.admit().expect("it is closed").failed(None);
            }
            breaker.admit().expect("it is closed").succeeded();
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn failures_of_one_moment_count_as_one() {
        let breaker = Breaker::default();
        let tries: Vec<_> = (0..64).map(|_| breaker.admit().expect("closed")).collect();
        tries.into_iter().for_each(|attempt| attempt.failed(None));
        assert_eq!(breaker.lock().pause, FIRST_PAUSE);
        breaker.lock().open_until = Some(Instant::now());
        let probe = breaker.admit().expect("its pause is over");
        assert!(breaker.admit().is_none(), "nothing else is let through");
        probe.failed(None);
        assert_eq!(breaker.lock().pause, 2 * FIRST_PAUSE);
    }

    #[test]
    fn a_late_verdict_does_not_disturb_the_try_that_decides() {
        let breaker = Breaker::default();
        let (late, given_up) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        let pause = Some(Duration::ZERO);
        breaker.admit().expect("closed").failed(pause);
        breaker.lock().open_until = Some(Instant::now());
        let _probe = breaker.admit().expect("its pause is over");
        late.failed(None);
        drop(given_up);
        assert!(breaker.admit().is_none(), "one try at a time");
    }

    #[test]
    fn one_failure_that_took_long_opens_it() {
        let breaker = Breaker::default();
        let mut attempt = breaker.admit().expect("closed");
        attempt.began -= SLOW_FAILURE;
        attempt.failed(None);
        assert!(breaker.is_open());
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
