//! Limits how often work starts.

use std::cell::Cell;
use std::time::Duration;

use tokio::time::Instant;

/// Spaces turns evenly. Commands run on one thread.
#[derive(Debug)]
pub struct Pace {
    /// Zero: no limit.
    interval: Duration,
    next: Cell<Instant>,
}

/// The delay that the pace catches up with: timers fire up to a few milliseconds late.
const CATCH_UP: Duration = Duration::from_millis(20);

impl Pace {
    /// Limits turns to a rate per second; `None`: no limit.
    pub fn new(rate: Option<f64>) -> Self {
        Self {
            interval: rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(1.0 / rate)),
            next: Cell::new(Instant::now()),
        }
    }

    /// Waits for a turn.
    pub async fn turn(&self) {
        loop {
            let (now, due) = (Instant::now(), self.next.get());
            if due <= now {
                let earliest = now.checked_sub(CATCH_UP).unwrap_or(now);
                self.next.set(due.max(earliest) + self.interval);
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }

    /// Gives no turn during the pause.
    pub fn hold(&self, pause: Duration) {
        self.next.set(self.next.get().max(Instant::now() + pause));
    }
}

/// Parses a rate per second.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok();
    let rate = rate.filter(|rate| (0.001..=1_000_000.0).contains(rate));
    rate.ok_or_else(|| "write a number per second, for example 50 or 0.5".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turns_are_spaced_and_held() {
        let (pace, start) = (Pace::new(Some(10.0)), Instant::now());
        for _ in 0..11 {
            pace.turn().await;
        }
        let took = start.elapsed();
        assert!((980..=1_030).contains(&took.as_millis()), "{took:?}");
        pace.hold(Duration::from_secs(5));
        pace.turn().await;
        assert!(start.elapsed() >= Duration::from_millis(5_900));
        // What was not used is not made up for.
        tokio::time::advance(Duration::from_secs(60)).await;
        let start = Instant::now();
        for _ in 0..11 {
            pace.turn().await;
        }
        assert!(start.elapsed() >= Duration::from_millis(900));
    }

    #[test]
    fn a_rate_is_a_number_above_nothing() {
        assert_eq!(rate("0.5"), Ok(0.5));
        for bad in ["0", "-1", "nan", "inf", "x", ""] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
