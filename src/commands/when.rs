//! Times as operators read and write them.

use std::time::{SystemTime, UNIX_EPOCH};

use entitlement_sync::message::iso;
use entitlement_sync::store::Ttl;

/// Epoch milliseconds.
pub fn now() -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A point in time as ISO 8601; the bare number where it is none.
pub fn point(millis: i64) -> String {
    u64::try_from(millis)
        .ok()
        .and_then(iso)
        .unwrap_or_else(|| millis.to_string())
}

/// How long ago, by its two largest units.
pub fn ago(millis: i64) -> String {
    if millis < 0 {
        return format!("{} ahead", span(millis.unsigned_abs() / 1_000));
    }
    span(millis.unsigned_abs() / 1_000)
}

pub fn ttl(ttl: Ttl) -> String {
    match ttl {
        Ttl::Missing => "-".to_owned(),
        Ttl::Forever => "for ever".to_owned(),
        Ttl::Secs(secs) => span(secs),
    }
}

/// Seconds, by their two largest units.
pub fn span(secs: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let mut left = secs;
    let mut parts = Vec::new();
    for (name, size) in units {
        if left >= size {
            parts.push(format!("{} {name}", left / size));
            left %= size;
        } else if !parts.is_empty() {
            // Days and seconds without what lies between would read oddly.
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() {
        return "0 s".to_owned();
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_two_largest_units() {
        for (secs, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min 1 s"),
            (3_600, "1 h"),
            (86_400 + 5, "1 d"),
            (604_799, "6 d 23 h"),
        ] {
            assert_eq!(span(secs), text);
        }
        assert_eq!(ago(-5_000), "5 s ahead");
    }
}
