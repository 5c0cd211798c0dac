//! Times as messages spell them: ISO 8601 strings or epoch milliseconds.

use std::borrow::Cow;
use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::{Iso8601, Rfc3339};

use super::{Invalid, Millis};

/// A point in time as it stands in a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Time<'a> {
    Text(Cow<'a, str>),
    Millis(Millis),
    /// With a fraction or a sign, or beyond all times.
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
        Ok(Time::Millis(millis))
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

impl<'a> Time<'a> {
    pub fn from_raw(raw: &'a RawValue) -> Option<Self> {
        serde_json::from_str(raw.get()).ok()
    }

    /// Epoch milliseconds, fractions dropped.
    pub fn millis(&self) -> Option<Millis> {
        match self {
            Time::Millis(millis) => Some(*millis).filter(|&millis| millis as f64 <= NEWEST),
            Time::Number(millis) => (0.0..=NEWEST).contains(millis).then_some(*millis as Millis),
            Time::Text(text) => parse(text.trim()),
        }
    }

    /// As [`millis`](Self::millis), with an error that names the field.
    pub fn required(&self, field: &str) -> Result<Millis, Invalid> {
        self.millis().ok_or_else(|| {
            Invalid::new(format!(
                "{field} is no time: write ISO 8601 or epoch milliseconds"
            ))
        })
    }

    /// As a value that readers take as epoch milliseconds; 0 stands for unknown, as in the SDK.
    pub fn known(time: Option<&Self>, field: &str) -> Result<Option<Millis>, Invalid> {
        let Some(time) = time else { return Ok(None) };
        if matches!(time, Time::Text(text) if text.is_empty()) {
            return Ok(None);
        }
        let millis = time.required(field)?;
        Ok((millis != 0).then_some(millis))
    }
}

/// A time as people write it: ISO 8601 or epoch milliseconds.
pub fn read_time(text: &str) -> Option<Millis> {
    match text.parse() {
        Ok(millis) => Some(millis).filter(|&millis: &Millis| millis as f64 <= NEWEST),
        Err(_) => parse(text),
    }
}

/// A time as people read it; `None` beyond the year 9999.
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

/// `2025-11-13T21:41:56.923Z`, as `JSON.stringify` writes every time; `None` for all else.
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

fn any(text: &str) -> Option<Millis> {
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| OffsetDateTime::parse(text, &Iso8601::DEFAULT))
        .ok()?;
    Millis::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()
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
        assert_eq!(read("0"), Some(0));
        for bad in [
            "\"\"",
            "\"yesterday\"",
            "-1",
            "1e300",
            "\"1969-12-31T23:59:59Z\"",
            "true",
        ] {
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
