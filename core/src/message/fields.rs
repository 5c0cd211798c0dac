//! Reads single fields of a body, for both passes.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::structure::{MAX_OPEN_VALUES, Members, NAME_FIELDS, spelled_in_header};
use super::time::Time;
use super::wire::{Event, Nested, Object, Text};
use super::{Invalid, Millis};

/// Parses the body again to find the place of an error. Never quotes a value.
pub(super) fn explain(text: &str, error: &serde_json::Error) -> Invalid {
    use serde_json::error::Category;
    let place = format!("at line {} column {}", error.line(), error.column());
    match error.classify() {
        Category::Syntax => return Invalid::new(format!("not JSON: syntax error {place}")),
        Category::Eof => return Invalid::new(format!("not JSON: it ends early {place}")),
        Category::Data | Category::Io => {}
    }
    if !text.trim_ascii_start().starts_with('{') {
        return Invalid::new("not an event: not a JSON object");
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let Err(error) = serde_path_to_error::deserialize::<_, Event<'_, Nested<'_>>>(&mut json) else {
        return Invalid::new(format!("not an event: invalid payload {place}"));
    };
    let path = error.path().to_string();
    let mut reason = error.into_inner().to_string();
    if reason.starts_with("invalid ") {
        // serde quotes the offending value: `invalid type: string "x", expected a number`.
        let (what, rest) = match reason.rfind(", expected") {
            Some(at) => reason.split_at(at),
            None => (reason.as_str(), ""),
        };
        let what = what.split(['"', '`']).next().unwrap_or_default();
        reason = format!("{}{rest}", what.trim_end_matches([',', ' ']));
    }
    Invalid::new(format!("{path}: {reason}"))
}

/// Reads the kind from message attributes that SNS and SQS write into a body.
pub(super) fn name_of_attributes(raw: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Attribute<'a> {
        #[serde(
            borrow,
            alias = "StringValue",
            alias = "stringValue",
            alias = "value",
            rename = "Value"
        )]
        value: Text<'a>,
    }
    let Members(attributes) = Members::of(raw.get(), MAX_OPEN_VALUES)?;
    NAME_FIELDS.into_iter().find_map(|field| {
        let named = attributes
            .iter()
            .filter(|(name, _)| spelled_in_header(name) == Some(field));
        let mut values = named.filter_map(|(_, raw)| {
            let attribute = serde_json::from_str::<Object<Attribute<'_>>>(raw.get());
            attribute.ok().map(|Object(it)| it.value.0.into_owned())
        });
        values.find(|value| !value.is_empty())
    })
}

pub(super) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|Text(text)| text)
}

pub(super) fn read_time(raw: &RawValue) -> Option<Millis> {
    serde_json::from_str::<Time<'_>>(raw.get()).ok()?.millis()
}

pub(super) fn is_object(raw: &&RawValue) -> bool {
    raw.get().starts_with('{')
}

/// Returns the only field of an object, if its value is an object.
pub(super) fn only_field(raw: &RawValue) -> Option<(Cow<'_, str>, &RawValue)> {
    struct OnlyField;

    impl<'de> Visitor<'de> for OnlyField {
        type Value = Option<(Cow<'de, str>, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let only = map.next_entry::<Text<'de>, &'de RawValue>()?;
            let mut is_only = true;
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                is_only = false;
            }
            let only = only.map(|(Text(name), value)| (name, value));
            Ok(only.filter(|(_, value)| is_only && is_object(value)))
        }
    }

    let mut json = serde_json::Deserializer::from_str(raw.get());
    json.deserialize_map(OnlyField).ok()?
}
