//! Keeps rates and lags of the last minutes, for `/status`, its page and the summary line.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Rate and lag of the last quarter of an hour, in slices of ten seconds.
#[derive(Debug)]
pub struct History {
    started: Instant,
    slices: Mutex<VecDeque<Slice>>,
}

const SLICE: Duration = Duration::from_secs(10);
const MAX_POINTS: usize = 90;
/// Buckets at quarter powers of two: a quantile is accurate to a tenth, from 1 ms to 12 days.
const BUCKETS: usize = 120;

#[derive(Debug)]
struct Slice {
    number: u64,
    messages: u64,
    lags: Vec<u32>,
}

/// One slice, as `/status` shows it. Lags are in milliseconds; none where nothing was applied.
#[derive(Debug, Serialize, PartialEq)]
pub struct Point {
    pub secs_ago: u64,
    pub messages: u64,
    pub lag_p50_ms: Option<u64>,
    pub lag_p99_ms: Option<u64>,
}

/// Quantiles of the lag over a window.
#[derive(Debug, Clone, Copy, Serialize, PartialEq, Eq, Default)]
pub struct Lag {
    pub window_secs: u64,
    pub messages: u64,
    pub p50_ms: Option<u64>,
    pub p95_ms: Option<u64>,
    pub p99_ms: Option<u64>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            slices: Mutex::default(),
        }
    }
}

impl History {
    /// Records a processed message, with its lag if it was applied.
    pub fn record(&self, lag_ms: Option<u64>) {
        let number = self.now();
        let mut slices = self.slices.lock().unwrap_or_else(|lock| lock.into_inner());
        if slices.back().is_none_or(|slice| slice.number != number) {
            if slices.len() == MAX_POINTS {
                slices.pop_front();
            }
            slices.push_back(Slice {
                number,
                messages: 0,
                lags: vec![0; BUCKETS],
            });
        }
        if let Some(slice) = slices.back_mut() {
            slice.messages += 1;
            if let Some(lag_ms) = lag_ms {
                slice.lags[bucket(lag_ms)] += 1;
            }
        }
    }

    /// Returns the rate and the lag of the last `window`, including the current slice.
    pub fn lag(&self, window: Duration) -> Lag {
        let oldest = self
            .now()
            .saturating_sub(window.as_secs().div_ceil(SLICE.as_secs()));
        let slices = self.slices.lock().unwrap_or_else(|lock| lock.into_inner());
        let mut lags = vec![0_u32; BUCKETS];
        let mut messages = 0;
        for slice in slices.iter().filter(|slice| slice.number >= oldest) {
            messages += slice.messages;
            lags.iter_mut()
                .zip(&slice.lags)
                .for_each(|(sum, count)| *sum += count);
        }
        Lag {
            window_secs: window.as_secs(),
            messages,
            p50_ms: quantile(&lags, 0.5),
            p95_ms: quantile(&lags, 0.95),
            p99_ms: quantile(&lags, 0.99),
        }
    }

    /// Returns the slices, oldest first, without empty ones.
    pub fn points(&self) -> Vec<Point> {
        // A new slice may have started since.
        let now = self.now();
        let slices = self.slices.lock().unwrap_or_else(|lock| lock.into_inner());
        let recent = slices
            .iter()
            .filter(|slice| now.saturating_sub(slice.number) < MAX_POINTS as u64);
        recent
            .map(|slice| Point {
                secs_ago: now.saturating_sub(slice.number) * SLICE.as_secs(),
                messages: slice.messages,
                lag_p50_ms: quantile(&slice.lags, 0.5),
                lag_p99_ms: quantile(&slice.lags, 0.99),
            })
            .collect()
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_secs() / SLICE.as_secs()
    }
}

fn bucket(lag_ms: u64) -> usize {
    let quarters = ((lag_ms + 1) as f64).log2() * 4.0;
    (quarters.round() as usize).min(BUCKETS - 1)
}

fn quantile(lags: &[u32], of: f64) -> Option<u64> {
    let total: u64 = lags.iter().map(|count| u64::from(*count)).sum();
    let rank = ((total as f64 * of).ceil() as u64).max(1);
    let mut seen = 0;
    lags.iter()
        .position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })
        .filter(|_| total > 0)
        .map(|bucket| (2_f64.powf(bucket as f64 / 4.0) - 1.0).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_tenth() {
        let history = History::default();
        for lag in 1..=1000 {
            history.record(Some(lag));
        }
        history.record(None);
        let lag = history.lag(Duration::from_secs(60));
        assert_eq!(lag.messages, 1001);
        for (found, right) in [(lag.p50_ms, 500), (lag.p95_ms, 950), (lag.p99_ms, 990)] {
            let found = found.unwrap();
            assert!(found.abs_diff(right) * 10 <= right, "{found} for {right}");
        }
        assert_eq!(history.points().len(), 1);
    }

    #[test]
    fn a_slice_that_began_while_we_looked_at_the_clock_is_no_time_ago() {
        let history = History::default();
        history.record(Some(1));
        history.slices.lock().unwrap()[0].number += 1;
        assert_eq!(history.points()[0].secs_ago, 0);
    }

    #[test]
    fn nothing_has_no_quantiles() {
        let history = History::default();
        history.record(None);
        let lag = history.lag(Duration::from_secs(60));
        assert_eq!((lag.messages, lag.p50_ms, lag.p99_ms), (1, None, None));
        assert_eq!(bucket(u64::MAX - 1), BUCKETS - 1);
        assert_eq!(quantile(&[0, 0], 0.5), None);
    }
}
