//! Parses the evaluation context of the remote evaluation protocol: which customer is asked for, and what it requests.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::path::is_id;
use crate::keys::Owner;
use crate::reader::Request;

/// A question about one customer.
pub struct Context<'a> {
    customer: Cow<'a, str>,
    resource: Option<Cow<'a, str>>,
    pub request: Request,
}

/// Why a body asks nothing, as the protocol says it.
pub struct Refusal {
    pub code: &'static str,
    pub details: &'static str,
}

const fn refusal(code: &'static str, details: &'static str) -> Refusal {
    Refusal { code, details }
}

const fn invalid(details: &'static str) -> Refusal {
    refusal("INVALID_CONTEXT", details)
}

const NO_TARGETING_KEY: Refusal = refusal(
    "TARGETING_KEY_MISSING",
    "context.targetingKey is missing: it is the id of the customer",
);

impl<'a> Context<'a> {
    pub fn parse(body: &'a [u8]) -> Result<Self, Refusal> {
        let body = serde_json::from_slice(body)
            .map_err(|_| refusal("PARSE_ERROR", "the body is not JSON"))?;
        let Json::Object(body) = body else {
            return Err(refusal("PARSE_ERROR", "the body is not a JSON object"));
        };
        let context = match body.context {
            Json::Null => return Err(NO_TARGETING_KEY),
            Json::Object(context) => context,
            _ => return Err(invalid("context is not an object")),
        };
        let customer = id(context.targeting_key)?.ok_or(NO_TARGETING_KEY)?;
        let resource = id(context.resource_id)?;
        if !is_id(&customer) || resource.as_deref().is_some_and(|id| !is_id(id)) {
            return Err(invalid(
                "an id is longer than 1,024 bytes, has control characters, or would name the keys of another",
            ));
        }
        let usage = match context.requested_usage {
            Json::Null => Some(0.0),
            Json::Number(usage) => usage.as_f64(),
            _ => None,
        };
        Ok(Self {
            customer,
            resource,
            request: Request {
                usage: usage.ok_or_else(|| invalid("requestedUsage is not a number"))?,
                values: values(context.requested_values)?,
            },
        })
    }

    pub fn owner(&self) -> Owner<'_> {
        Owner {
            customer: &self.customer,
            resource: self.resource.as_deref(),
        }
    }
}

/// Returns an id; an empty one counts as none.
fn id(value: Json<'_>) -> Result<Option<Cow<'_, str>>, Refusal> {
    match value {
        Json::Null => Ok(None),
        Json::Text(id) => Ok(Some(id).filter(|id| !id.is_empty())),
        Json::Number(id) if !id.is_f64() => Ok(Some(id.to_string().into())),
        _ => Err(invalid("targetingKey and resourceId are ids, as text")),
    }
}

fn values(value: Json<'_>) -> Result<Vec<String>, Refusal> {
    let text = |value| match value {
        Json::Text(text) => Ok(text.into_owned()),
        _ => Err(invalid("requestedValues holds something that is not text")),
    };
    match value {
        Json::Null => Ok(Vec::new()),
        Json::Text(value) => Ok(vec![value.into_owned()]),
        Json::List(values) => values.into_iter().map(text).collect(),
        _ => Err(invalid("requestedValues is not a list")),
    }
}

/// A JSON value that borrows its text from the body, and drops the members that mean nothing here.
#[derive(Default)]
enum Json<'a> {
    #[default]
    Null,
    Bool,
    Number(Number),
    Text(Cow<'a, str>),
    List(Vec<Json<'a>>),
    Object(Box<Members<'a>>),
}

/// The members of a body or a context. Of two with one name, the last counts.
#[derive(Default)]
struct Members<'a> {
    context: Json<'a>,
    targeting_key: Json<'a>,
    resource_id: Json<'a>,
    requested_usage: Json<'a>,
    requested_values: Json<'a>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Name {
    Context,
    TargetingKey,
    ResourceId,
    RequestedUsage,
    RequestedValues,
    #[serde(other)]
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json<'de>, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json<'de>, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(text.to_owned().into()))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(text.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut members = Box::<Members<'de>>::default();
        while let Some(name) = map.next_key()? {
            let member = match name {
                Name::Context => &mut members.context,
                Name::TargetingKey => &mut members.targeting_key,
                Name::ResourceId => &mut members.resource_id,
                Name::RequestedUsage => &mut members.requested_usage,
                Name::RequestedValues => &mut members.requested_values,
                Name::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *member = map.next_value()?;
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_two_members_counts_and_others_do_not() {
        let body = br#"{"x":[{"context":1}],"context":7,"context":{"a":{"b":[null,1.5e300]},
            "targetingKey":"x","targetingKey":"a\u00fc","resourceId":18446744073709551615,
            "requestedUsage":2.5,"requestedValues":["eu","\u0075s"]}}"#;
        let context = Context::parse(body).ok().unwrap();
        let owner = context.owner();
        assert_eq!(owner.customer, "aü");
        assert_eq!(owner.resource, Some("18446744073709551615"));
        assert_eq!(context.request.usage, 2.5);
        assert_eq!(context.request.values, ["eu", "us"]);
    }

    #[test]
    fn what_is_no_question_is_refused() {
        for (body, code) in [
            ("", "PARSE_ERROR"),
            ("{", "PARSE_ERROR"),
            ("[]", "PARSE_ERROR"),
            ("{} x", "PARSE_ERROR"),
            ("{}", "TARGETING_KEY_MISSING"),
            (r#"{"context":null}"#, "TARGETING_KEY_MISSING"),
            (
                r#"{"context":{"targetingKey":""}}"#,
                "TARGETING_KEY_MISSING",
            ),
            (r#"{"targetingKey":"a"}"#, "TARGETING_KEY_MISSING"),
            (r#"{"context":[]}"#, "INVALID_CONTEXT"),
            (r#"{"context":{"targetingKey":1.5}}"#, "INVALID_CONTEXT"),
            (r#"{"context":{"targetingKey":".."}}"#, "INVALID_CONTEXT"),
            (
                r#"{"context":{"targetingKey":"a","requestedUsage":"1"}}"#,
                "INVALID_CONTEXT",
            ),
            (
                r#"{"context":{"targetingKey":"a","requestedValues":{}}}"#,
                "INVALID_CONTEXT",
            ),
            (
                r#"{"context":{"targetingKey":"a","requestedValues":["x",1]}}"#,
                "INVALID_CONTEXT",
            ),
        ] {
            let refused = Context::parse(body.as_bytes()).err();
            assert_eq!(refused.map(|it| it.code), Some(code), "{body}");
        }
        // Deep nesting ends in an error, not in a full stack.
        for deep in ["[".repeat(60_000), r#"{"context":"#.repeat(6_000)] {
            let refused = Context::parse(deep.as_bytes()).err();
            assert_eq!(refused.map(|it| it.code), Some("PARSE_ERROR"));
        }
    }
}
