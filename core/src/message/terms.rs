//! Numbers in their original text, and the types of features and meters.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::wire::Text;

/// A JSON number as its original text, so that fractions and more than 64 bits survive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number<'a>(Cow<'a, str>);

impl Number<'_> {
    pub const ZERO: Number<'static> = Number(Cow::Borrowed("0"));

    /// Formats a number as JavaScript does; `None` for zero, and for values that JSON cannot express.
    pub fn finite(number: f64) -> Option<Number<'static>> {
        /// The largest whole number that a float represents exactly.
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

    pub(super) fn into_owned(self) -> Number<'static> {
        Number(Cow::Owned(self.0.into_owned()))
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
        let text = match text.as_bytes().first() {
            Some(b'"') => text.trim_matches('"').trim(),
            _ => text,
        };
        let is_finite = match text.as_bytes() {
            // A number of up to 15 digits is always finite.
            [b'1'..=b'9', rest @ ..] if rest.len() < 15 && rest.iter().all(u8::is_ascii_digit) => {
                true
            }
            // A reader would read 1e999 as infinity, which would be a limit without end.
            _ => is_json_number(text) && text.parse().is_ok_and(f64::is_finite),
        };
        match is_finite {
            true => Ok(Self(Cow::Borrowed(text))),
            false => Err(serde::de::Error::custom("expected a finite number")),
        }
    }
}

/// Checks a number in quotes: it is written without them, so it must be a JSON number.
fn is_json_number(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| {
        raw.get()
            .starts_with(|it: char| it == '-' || it.is_ascii_digit())
    })
}

/// The type of a feature; an unknown type is written unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeatureType<'a> {
    Boolean,
    Number,
    Enum,
    Other(Cow<'a, str>),
}

/// The meter type of a feature; an unknown type is written unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeterType<'a> {
    None,
    Fluctuating,
    Incremental,
    Other(Cow<'a, str>),
}

macro_rules! by_name {
    ($type:ident: $($variant:ident = $written:literal),+) => {
        impl $type<'_> {
            /// Returns the name that readers know.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $written,)+
                    Self::Other(name) => name,
                }
            }

            pub(super) fn into_owned(self) -> $type<'static> {
                match self {
                    $(Self::$variant => $type::$variant,)+
                    Self::Other(name) => $type::Other(Cow::Owned(name.into_owned())),
                }
            }
        }

        impl<'de: 'a, 'a> Deserialize<'de> for $type<'a> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = Text::deserialize(deserializer)?.0;
                $(if name.eq_ignore_ascii_case($written) {
                    return Ok(Self::$variant);
                })+
                Ok(Self::Other(name))
            }
        }
    };
}
by_name!(FeatureType: Boolean = "BOOLEAN", Number = "NUMBER", Enum = "ENUM");
by_name!(MeterType: None = "None", Fluctuating = "Fluctuating", Incremental = "Incremental");

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
