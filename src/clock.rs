//! Reads this machine's clock.

use std::time::{Duration, UNIX_EPOCH};

/// Returns epoch milliseconds; 0 for a clock before 1970.
pub fn now_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Returns epoch seconds with their fraction.
pub fn now_secs() -> f64 {
    since_epoch().as_secs_f64()
}

fn since_epoch() -> Duration {
    UNIX_EPOCH.elapsed().unwrap_or_default()
}
