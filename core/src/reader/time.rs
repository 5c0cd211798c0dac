//! Formats times as GraphQL does.

use serde::{Serialize, Serializer};
use time::OffsetDateTime;

/// A time in milliseconds since 1970, printed as `2026-01-31T12:00:00.000Z`; null where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Iso(pub Option<f64>);

impl Iso {
    pub fn is_none(&self) -> bool {
        self.moment().is_none()
    }

    /// The second, and the milliseconds after it.
    fn moment(self) -> Option<(OffsetDateTime, i64)> {
        let millis = self.0? as i64;
        let second = OffsetDateTime::from_unix_timestamp(millis.div_euclid(1_000)).ok()?;
        // Four digits, as RFC 3339 requires.
        (second.year() >= 0).then_some((second, millis.rem_euclid(1_000)))
    }
}

impl Serialize for Iso {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some((moment, millis)) = self.moment() else {
            return serializer.serialize_unit();
        };
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let (year, month) = (moment.year().unsigned_abs(), u8::from(moment.month()));
        for (end, mut number) in [
            (4, year.into()),
            (7, month.into()),
            (10, moment.day().into()),
            (13, moment.hour().into()),
            (16, moment.minute().into()),
            (19, moment.second().into()),
            (23, millis),
        ] {
            let mut at = end;
            while number > 0 {
                at -= 1;
                text[at] = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        serializer.serialize_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::Iso;

    #[test]
    fn times_have_three_digits_of_a_second() {
        for (millis, expected) in [
            (Some(0.0), r#""1970-01-01T00:00:00.000Z""#),
            (Some(1_763_070_116_923.0), r#""2025-11-13T21:41:56.923Z""#),
            (Some(1_763_070_116_900.7), r#""2025-11-13T21:41:56.900Z""#),
            (Some(-1.0), r#""1969-12-31T23:59:59.999Z""#),
            (Some(253_402_300_799_999.0), r#""9999-12-31T23:59:59.999Z""#),
            (Some(253_402_300_800_000.0), "null"),
            (Some(-62_167_219_200_001.0), "null"),
            (Some(f64::MAX), "null"),
            (None, "null"),
        ] {
            let iso = Iso(millis);
            assert_eq!(serde_json::to_string(&iso).unwrap(), expected);
            assert_eq!(iso.is_none(), expected == "null");
        }
    }
}
