//! Parses and prints times for operators.

use entitlement_sync::clock::now_ms;
use entitlement_sync::message::{self, iso};
use entitlement_sync::store::Ttl;

/// How far a time to write may be in the future, because clocks differ.
const MAX_AHEAD_MINUTES: u64 = 5;

/// Parses a time to store in Redis: `now`, ISO 8601 or epoch milliseconds. A time in the future would block
/// all newer state until it has passed.
pub fn written(text: &str) -> Result<u64, String> {
    let now = now_ms();
    if text.trim() == "now" {
        return Ok(now);
    }
    let Some(at) = message::read_time(text.trim()).filter(|at| *at > 0) else {
        return Err("not a valid time; use now, ISO 8601 or epoch milliseconds".into());
    };
    let ahead = at.saturating_sub(now);
    if ahead > MAX_AHEAD_MINUTES * 60_000 {
        let ahead = span(ahead / 1_000);
        return Err(format!(
            "{ahead} ahead of this machine's clock; use a time at most {MAX_AHEAD_MINUTES} min ahead, \
             because state older than it would be rejected until then"
        ));
    }
    Ok(at)
}

/// Formats a time as ISO 8601, or as the number if it is not a valid time.
pub fn point(millis: i64) -> String {
    u64::try_from(millis)
        .ok()
        .and_then(iso)
        .unwrap_or_else(|| millis.to_string())
}

/// Formats the time since a point, in its two largest units.
pub fn ago(millis: i64) -> String {
    if millis < 0 {
        return format!("{} ahead", span(millis.unsigned_abs() / 1_000));
    }
    span(millis.unsigned_abs() / 1_000)
}

pub fn ttl(ttl: Ttl) -> String {
    match ttl {
        Ttl::Missing => "-".to_owned(),
        Ttl::Forever => "no expiry".to_owned(),
        Ttl::Secs(secs) => span(secs),
    }
}

/// Formats seconds in their two largest units.
pub fn span(secs: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];
    let mut left = secs;
    let mut parts = Vec::new();
    for (name, size) in units {
        if left >= size {
            parts.push(format!("{} {name}", left / size));
            left %= size;
        } else if !parts.is_empty() {
            // Units must be adjacent: days and seconds without hours would be confusing.
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
    fn times_far_ahead_are_refused() {
        let ahead = |minutes: u64| (now_ms() + minutes * 60_000).to_string();
        assert_eq!(written("1763070116923"), Ok(1_763_070_116_923));
        assert_eq!(written(" 2025-11-13T21:41:56.923Z "), Ok(1_763_070_116_923));
        assert!(written("now").is_ok() && written(&ahead(4)).is_ok());
        for bad in ["0", "-1", "soon", "", &ahead(6), "2999-01-01T00:00:00Z"] {
            assert!(written(bad).is_err(), "{bad}");
        }
        assert!(written(&ahead(90)).unwrap_err().contains(" ahead of this"));
    }

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
