//! Reads the variables of writing: prefix, lifetime and policies.

use super::WriteConfig;
use super::read::Reader;
use super::variables::Raw;
use crate::plan::Rules;

/// Reads how state is written.
pub fn read(read: &mut Reader, raw: &mut Raw, warnings: &mut Vec<String>) -> WriteConfig {
    let prefix = read
        .either(
            ("ENVIRONMENT_PREFIX", raw.environment_prefix.take()),
            (
                "REDIS_ENVIRONMENT_PREFIX",
                raw.redis_environment_prefix.take(),
            ),
        )
        .unwrap_or_else(|| "production".into());
    let ttl: i64 = read.number(
        "KEYS_TTL_IN_SECS",
        raw.keys_ttl_in_secs.take(),
        604_800,
        i64::MIN..=2_147_483_647,
    );
    if ttl == 0 {
        read.problem(
            "KEYS_TTL_IN_SECS",
            "is 0, so keys would expire at once: write seconds, or -1 for no expiry",
        );
    }
    if ttl > 31_536_000 {
        warnings.push(format!(
            "KEYS_TTL_IN_SECS={ttl} is over a year; the unit is seconds, not milliseconds"
        ));
    }
    let policy = read.one_of(
        "CACHE_UPDATE_POLICY",
        raw.cache_update_policy.take(),
        &["UPSERT", "UPDATE_IF_EXISTS", "INVALIDATE"],
    );
    let credits = read.one_of(
        "CREDIT_ENTITLEMENTS",
        raw.credit_entitlements.take(),
        &["invalidate", "omit"],
    );
    WriteConfig {
        prefix,
        ttl_secs: u32::try_from(ttl).ok(),
        update_if_exists: policy == Some(1),
        rules: Rules {
            invalidate: policy == Some(2),
            omit_credits: credits == Some(1),
        },
        lock_retries: read.number(
            "CACHE_LOCK_RETRY_COUNT",
            raw.cache_lock_retry_count.take(),
            240,
            0..=100_000,
        ),
    }
}
