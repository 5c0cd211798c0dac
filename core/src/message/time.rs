//! Parses the times of messages: ISO 8601, or seconds, milliseconds, microseconds or nanoseconds since the epoch.

use std::borrow::Cow;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use time::format_description::well_known::{Iso8601, Rfc2822, Rfc3339};
use time::{OffsetDateTime, PrimitiveDateTime};

use super::{Invalid, Millis};

/// A time as written in a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Time<'a> {
    Text(Cow<'a, str>),
    Whole(u64),
    /// A number with a fraction or a sign, or beyond all times.
    Number(f64),
}

impl<'de: 'a, 'a> Deserialize<'de> for Time<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor)
    }
}

struct TimeVisitor;

impl<'de> Visitor<'de> for TimeVisitor {
    type Value = Time<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ISO 8601 or epoch milliseconds")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Time::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Time::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, millis: u64) -> Result<Self::Value, E> {
        Ok(Time::Whole(millis))
    }

    fn visit_i64<E>(self, millis: i64) -> Result<Self::Value, E> {
        Ok(Time::Number(millis as f64))
    }

    fn visit_f64<E>(self, millis: f64) -> Result<Self::Value, E> {
        Ok(Time::Number(millis))
    }
}

/// The newest time that JavaScript's `Date` can hold.
const NEWEST: f64 = 8.64e15;

impl Time<'_> {
    /// Returns epoch milliseconds without fractions; 0 for an unknown time, which zero, negative
    /// and empty values mean. `None` for a value that is not a time.
    pub fn millis(&self) -> Option<Millis> {
        match self {
            Time::Whole(number) => scale_whole(*number),
            Time::Number(number) => scale(*number),
            Time::Text(text) => match text.trim() {
                "" => Some(0),
                text => parse(text).or_else(|| scale(text.parse().ok()?)),
            },
        }
    }

    /// Returns [`millis`](Self::millis), or an error that names the field.
    pub fn required(&self, field: &str) -> Result<Millis, Invalid> {
        self.millis().ok_or_else(|| {
            Invalid::new(format!(
                "{field} is not a valid time; use ISO 8601 or epoch milliseconds"
            ))
        })
    }

    /// Returns epoch milliseconds for readers; `None` for an unknown time.
    pub fn known(time: Option<&Self>, field: &str) -> Result<Option<Millis>, Invalid> {
        let millis = time.map(|time| time.required(field)).transpose()?;
        Ok(millis.filter(|&millis| millis != 0))
    }
}

/// Converts a number to milliseconds by its size: below 10^11 it counts seconds, from 10^14 on microseconds, from
/// 10^17 on nanoseconds. As milliseconds these bounds are March 1973 and the year 5138.
fn scale_whole(number: u64) -> Option<Millis> {
    Some(match number {
        0..100_000_000_000 => number * 1_000,
        100_000_000_000..100_000_000_000_000 => number,
        100_000_000_000_000..100_000_000_000_000_000 => number / 1_000,
        _ => number / 1_000_000,
    })
}

fn scale(number: f64) -> Option<Millis> {
    let millis = match number {
        _ if number.is_nan() => return None,
        _ if number <= 0.0 => return Some(0),
        _ if number < 1e11 => number * 1e3,
        _ if number < 1e14 => number,
        _ if number < 1e17 => number / 1e3,
        _ => number / 1e6,
    };
    // A float does not represent a fraction of a second exactly: 1763070116.923 is a little less.
    (millis <= NEWEST).then_some((millis + 1e-4) as Millis)
}

/// Parses a time of an operator: ISO 8601 or epoch milliseconds.
pub fn read_time(text: &str) -> Option<Millis> {
    match text.parse() {
        Ok(millis) => Some(millis).filter(|&millis: &Millis| millis as f64 <= NEWEST),
        Err(_) => parse(text),
    }
}

/// Formats a time as ISO 8601; `None` beyond the year 9999.
pub fn iso(millis: Millis) -> Option<String> {
    let nanos = i128::from(millis) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    let (date, clock) = (time.date(), time.time());
    Some(format!(
        "{date}T{:02}:{:02}:{:02}.{:03}Z",
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond()
    ))
}

fn parse(text: &str) -> Option<Millis> {
    usual(text.as_bytes()).or_else(|| any(text))
}

/// Parses `2025-11-13T21:41:56.923Z`, the format of `JSON.stringify`; `None` for other formats.
fn usual(text: &[u8]) -> Option<Millis> {
    let text: &[u8; 24] = text.try_into().ok()?;
    const FORM: &[u8; 24] = b"dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        form => byte == form,
    };
    if !text.iter().zip(FORM).all(fits) {
        return None;
    }
    let number = |from: usize, to: usize| {
        let digits = text[from..to].iter();
        digits.fold(0_u16, |number, digit| number * 10 + u16::from(digit - b'0'))
    };
    let part = |from| u8::try_from(number(from, from + 2)).ok();
    let month = time::Month::try_from(part(5)?).ok()?;
    let date = time::Date::from_calendar_date(i32::from(number(0, 4)), month, part(8)?).ok()?;
    let time = time::Time::from_hms_milli(part(11)?, part(14)?, part(17)?, number(20, 23)).ok()?;
    let seconds = date.with_time(time).assume_utc().unix_timestamp();
    Some(Millis::try_from(seconds).ok()? * 1_000 + u64::from(time.millisecond()))
}

/// Parses ISO 8601. Without an offset a time is UTC. Times before 1970 count as unknown.
fn any(text: &str) -> Option<Millis> {
    // "2025-11-13 21:41:56.923 UTC", also with "+0000" before it.
    let zoned;
    let text = match text.strip_suffix(" UTC") {
        Some(bare) => {
            zoned = bare.replace(" +", "+");
            zoned.as_str()
        }
        None => text,
    };
    let with_t = match text.as_bytes().get(10) {
        Some(b' ') => Cow::Owned(text.replacen(' ', "T", 1)),
        _ => Cow::Borrowed(text),
    };
    let text: &str = &with_t;
    let iso = &Iso8601::PARSING;
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(text, iso))
        .or_else(|_| PrimitiveDateTime::parse(text, iso).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| time::Date::parse(text, iso).map(|date| date.midnight().assume_utc()))
        .or_else(|_| OffsetDateTime::parse(text, &Rfc2822))
        .ok()?;
    Some(Millis::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_sources_write() {
        let read = |json: &str| serde_json::from_str::<Time<'_>>(json).ok()?.millis();
        assert_eq!(
            read("\"2025-11-13T21:41:56.923Z\""),
            Some(1_763_070_116_923)
        );
        assert_eq!(read("\"2025-11-13T21:41:56Z\""), Some(1_763_070_116_000));
        assert_eq!(
            read("\"2025-11-13T23:41:56.9239+02:00\""),
            Some(1_763_070_116_923)
        );
        assert_eq!(read("1763070116923"), Some(1_763_070_116_923));
        assert_eq!(read("1763070116923.9"), Some(1_763_070_116_923));
        for same in [
            "1763070116.923",
            "1763070116923000",
            "1763070116923000999",
            "\"1763070116923\"",
            "\" 1763070116.923 \"",
            "\"2025-11-13 21:41:56.923Z\"",
            "\"2025-11-13T21:41:56.923\"",
            "\"2025-11-13T21:41:56.923+0000\"",
            "\"2025-11-13 21:41:56.923 UTC\"",
            "\"2025-11-13 21:41:56.923 +0000 UTC\"",
        ] {
            assert_eq!(read(same), Some(1_763_070_116_923), "{same}");
        }
        assert_eq!(read("1763070116"), Some(1_763_070_116_000));
        assert_eq!(read("\"2025-11-13\""), Some(1_762_992_000_000));
        for rfc_2822 in [
            "\"Thu, 13 Nov 2025 21:41:56 GMT\"",
            "\"13 Nov 2025 23:41:56 +0200\"",
        ] {
            assert_eq!(read(rfc_2822), Some(1_763_070_116_000), "{rfc_2822}");
        }
        for unknown in ["0", "-1", "\"\"", "\"-5\"", "\"1969-12-31T23:59:59Z\""] {
            assert_eq!(read(unknown), Some(0), "{unknown}");
        }
        for bad in ["\"yesterday\"", "1e300", "\"nan\"", "true"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn people_write_and_read_times_in_both_forms() {
        assert_eq!(read_time("1763070116923"), Some(1_763_070_116_923));
        assert_eq!(
            read_time("2025-11-13T21:41:56.923Z"),
            Some(1_763_070_116_923)
        );
        for bad in ["", "yesterday", "-1", "99999999999999999"] {
            assert_eq!(read_time(bad), None, "{bad}");
        }
        let written = iso(1_763_070_116_923);
        assert_eq!(written.as_deref(), Some("2025-11-13T21:41:56.923Z"));
        assert_eq!(iso(u64::MAX), None);
    }
}
