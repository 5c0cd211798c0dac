//! Holds one JSON value in few bytes, and reads it as JavaScript does.

use std::borrow::Cow;

use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON value. What a decision compares is typed; arrays and objects stay text.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Datum<'a> {
    #[default]
    Null,
    Bool(bool),
    Int(i64),
    /// A number above those of `Int`.
    Large(u64),
    Float(f64),
    Text(Cow<'a, str>),
    /// An array or an object, as JSON.
    Json(Cow<'a, str>),
}

impl Datum<'_> {
    pub fn of(value: &Value) -> Datum<'static> {
        match value {
            Value::Null => Datum::Null,
            Value::Bool(value) => Datum::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Datum::Int(number),
                (None, Some(number)) => Datum::Large(number),
                (None, None) => Datum::float(number.as_f64()),
            },
            Value::String(text) => Datum::Text(text.clone().into()),
            Value::Array(_) | Value::Object(_) => Datum::Json(value.to_string().into()),
        }
    }

    /// Returns the number, or null.
    pub fn float(number: Option<f64>) -> Datum<'static> {
        number.map_or(Datum::Null, Datum::Float)
    }

    pub fn is_null(&self) -> bool {
        *self == Datum::Null
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Datum::Int(_) | Datum::Large(_) | Datum::Float(_))
    }

    /// Returns whether it is true in JavaScript.
    pub fn is_truthy(&self) -> bool {
        match self {
            Datum::Bool(value) => *value,
            Datum::Text(text) => !text.is_empty(),
            Datum::Json(_) => true,
            _ => self.as_f64().is_some_and(|number| number != 0.0),
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Datum::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Datum::Int(number) => Some(*number as f64),
            Datum::Large(number) => Some(*number as f64),
            Datum::Float(number) => Some(*number),
            _ => None,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Datum::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns a string without its quotes, and other values as JSON.
    pub fn plain(&self) -> Cow<'_, str> {
        match self {
            Datum::Text(text) | Datum::Json(text) => text.as_ref().into(),
            _ => serde_json::to_string(self).unwrap_or_default().into(),
        }
    }

    /// Returns the elements of an array as an SDK compares them.
    pub fn elements(&self) -> Vec<String> {
        let Datum::Json(text) = self else {
            return Vec::new();
        };
        let values: Vec<Value> = serde_json::from_str(text).unwrap_or_default();
        values.iter().map(super::plain).collect()
    }

    /// Returns a value that borrows from this one.
    pub fn borrowed(&self) -> Datum<'_> {
        match self {
            Datum::Null => Datum::Null,
            Datum::Bool(value) => Datum::Bool(*value),
            Datum::Int(number) => Datum::Int(*number),
            Datum::Large(number) => Datum::Large(*number),
            Datum::Float(number) => Datum::Float(*number),
            Datum::Text(text) => Datum::Text(text.as_ref().into()),
            Datum::Json(text) => Datum::Json(text.as_ref().into()),
        }
    }

    /// Returns a number as it is, and null for anything else: clients expect a number.
    pub fn number(&self) -> Datum<'_> {
        match self.is_number() {
            true => self.borrowed(),
            false => Datum::Null,
        }
    }
}

impl Serialize for Datum<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Datum::Null => serializer.serialize_unit(),
            Datum::Bool(value) => serializer.serialize_bool(*value),
            Datum::Int(number) => serializer.serialize_i64(*number),
            Datum::Large(number) => serializer.serialize_u64(*number),
            Datum::Float(number) => serializer.serialize_f64(*number),
            Datum::Text(text) => serializer.serialize_str(text),
            Datum::Json(text) => match serde_json::from_str::<&RawValue>(text) {
                Ok(raw) => raw.serialize(serializer),
                // A `State` of bytes that are not ours.
                Err(_) => serializer.serialize_unit(),
            },
        }
    }
}
