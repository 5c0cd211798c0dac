//! Computes when the queue redelivers a message that was returned.

use std::time::Duration;

/// The longest pause before the redelivery of a message that cannot be applied.
const MAX_RETRY_SECS: u64 = 300;

/// Returns a pause that grows with the deliveries so far, with full jitter, in whole seconds as in SQS.
pub(super) fn retry_delay(receive_count: u32) -> Duration {
    let ceiling = 1_u64.checked_shl(receive_count.min(20)).unwrap_or(u64::MAX);
    Duration::from_secs(1 + fastrand::u64(0..ceiling.min(MAX_RETRY_SECS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_spread_and_bounded() {
        for count in [1, 3, 9, 40, u32::MAX] {
            let most = 1 + (1_u64 << count.min(20)).min(MAX_RETRY_SECS);
            for _ in 0..200 {
                assert!(
                    (1..=most).contains(&retry_delay(count).as_secs()),
                    "{count}"
                );
            }
        }
    }
}
