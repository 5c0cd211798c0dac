//! The values that stand for themselves: numbers as they came, and the two closed lists of words.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::wire::Text;

/// A JSON number, its text as it came: fractions and more than 64 bits survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number<'a>(Cow<'a, str>);

impl Number<'_> {
    pub const ZERO: Number<'static> = Number(Cow::Borrowed("0"));

    /// As JavaScript writes it; `None` for zero, and for what JSON cannot write.
    pub fn finite(number: f64) -> Option<Number<'static>> {
        /// Whole numbers up to here are told from their neighbours.
        const EXACT: f64 = (1_u64 << 53) as f64;
        let text = match number.fract() == 0.0 && number.abs() < EXACT {
            true => (number as i64).to_string(),
            false => serde_json::Number::from_f64(number)?.to_string(),
        };
        (number != 0.0).then(|| Number(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<u64> for Number<'static> {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Number<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&'de RawValue>::deserialize(deserializer)?.get();
        // A reader would take 1e999 for infinity, and an infinite limit for a generous one.
        match text.as_bytes().first() {
            // So many digits alone are finite, whatever they are.
            Some(b'0'..=b'9') if text.len() < 16 && !text.contains(['e', 'E']) => {
                Ok(Self(Cow::Borrowed(text)))
            }
            Some(b'0'..=b'9' | b'-') if text.parse().is_ok_and(f64::is_finite) => {
                Ok(Self(Cow::Borrowed(text)))
            }
            _ => Err(serde::de::Error::custom("expected a finite number")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureType {
    Boolean,
    Number,
    Enum,
}

impl FeatureType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::Number => "NUMBER",
            Self::Enum => "ENUM",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeterType {
    None,
    Fluctuating,
    Incremental,
}

impl MeterType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Fluctuating => "Fluctuating",
            Self::Incremental => "Incremental",
        }
    }
}

macro_rules! by_name {
    ($type:ident: $($variant:ident),+) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = Text::deserialize(deserializer)?.0;
                $(if name.eq_ignore_ascii_case(stringify!($variant)) {
                    return Ok(Self::$variant);
                })+
                Err(serde::de::Error::custom(concat!("unknown ", stringify!($type))))
            }
        }
    };
}
by_name!(FeatureType: Boolean, Number, Enum);
by_name!(MeterType: None, Fluctuating, Incremental);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_with_its_value() {
        for (number, text) in [
            (1.9e12, "1900000000000"),
            (1_900_000_000_000.5, "1900000000000.5"),
            (-1.0, "-1"),
            (1e-7, "1e-7"),
        ] {
            let written = Number::finite(number);
            assert_eq!(written.as_ref().map(Number::as_str), Some(text));
        }
        let large = Number::finite(1e300).unwrap();
        assert_eq!(large.as_str().parse(), Ok(1e300));
        for none in [0.0, -0.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Number::finite(none), None, "{none}");
        }
    }
}
