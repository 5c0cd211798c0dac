//! The real time, and clocks that are ahead of it.

use fastrand::Rng;

/// From ten minutes to centuries.
pub fn ahead(rng: &mut Rng) -> u64 {
    const MINUTE: u64 = 60_000;
    const YEAR: u64 = 365 * 24 * 60 * MINUTE;
    match rng.bool() {
        true => rng.u64(10 * MINUTE..10 * 60 * MINUTE),
        false => rng.u64(YEAR..900 * YEAR),
    }
}

/// Milliseconds since the epoch.
pub fn real_time() -> u64 {
    let since = std::time::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_millis() as u64)
}
