//! When a message that was given back is handed out again.

use std::time::Duration;

/// The longest pause before a message that cannot be applied is handed out again.
const LONGEST_RETRY_SECS: u64 = 300;

/// Grows with the deliveries so far, with full jitter; whole seconds, as SQS counts them.
pub(super) fn retry_delay(receive_count: u32) -> Duration {
    let ceiling = 1_u64.checked_shl(receive_count.min(20)).unwrap_or(u64::MAX);
    Duration::from_secs(1 + fastrand::u64(0..ceiling.min(LONGEST_RETRY_SECS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_spread_and_bounded() {
        for count in [1, 3, 9, 40, u32::MAX] {
            let most = 1 + (1_u64 << count.min(20)).min(LONGEST_RETRY_SECS);
            for _ in 0..200 {
                assert!(
                    (1..=most).contains(&retry_delay(count).as_secs()),
                    "{count}"
                );
            }
        }
    }
}
