//! The shape of a body, to be shown to people who must not see what is in it: names and JSON types,
//! never values.
//!
//! A name may be data, for example the id of a feature that keys a map. So a name is shown only if
//! all of its words are in a fixed list of words that schemas of events use. Any other is shown as
//! `<name 1>`, with the same number wherever it stands again.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Levels and values of a body that are looked at; what lies beyond is cut.
const MAX_DEPTH: usize = 16;
const MAX_VALUES: usize = 10_000;
/// Bytes of a name that is looked at.
const MAX_NAME_BYTES: usize = 64;

/// The shape of a body. Lists show each shape of their elements once.
pub fn skeleton(body: &str) -> Value {
    let mut shape = Shape::default();
    match serde_json::from_str(body.trim_start_matches('\u{feff}')) {
        Ok(value) => shape.of(&value, 0),
        Err(_) => json!("not JSON"),
    }
}

#[derive(Default)]
struct Shape {
    /// Names that are not shown, with their numbers.
    hidden: BTreeMap<String, usize>,
    values: usize,
}

impl Shape {
    fn of(&mut self, value: &Value, depth: usize) -> Value {
        self.values += 1;
        if depth > MAX_DEPTH || self.values > MAX_VALUES {
            return json!("cut");
        }
        match value {
            Value::Null => json!("null"),
            Value::Bool(_) => json!("boolean"),
            Value::Number(_) => json!("number"),
            Value::String(text) => self.of_text(text, depth),
            Value::Array(list) => {
                let mut shapes: Vec<Value> = Vec::new();
                for value in list {
                    let shape = self.of(value, depth + 1);
                    if !shapes.contains(&shape) {
                        shapes.push(shape);
                    }
                    if self.values > MAX_VALUES {
                        break;
                    }
                }
                shapes.into()
            }
            Value::Object(fields) => {
                let mut shapes = Map::new();
                // Of names that are hidden, one of those with the same shape is enough.
                let mut hidden: Vec<Value> = Vec::new();
                for (name, value) in fields {
                    let is_hidden = !is_shown(name);
                    let name = self.name(name);
                    let shape = self.of(value, depth + 1);
                    if is_hidden && hidden.contains(&shape) {
                        continue;
                    }
                    if is_hidden {
                        hidden.push(shape.clone());
                    }
                    shapes.insert(name, shape);
                    if self.values > MAX_VALUES {
                        break;
                    }
                }
                shapes.into()
            }
        }
    }

    /// A text that holds JSON is opened, because wrappings are what is looked for.
    fn of_text(&mut self, text: &str, depth: usize) -> Value {
        let start = text.trim_start().as_bytes().first();
        if matches!(start, Some(b'{' | b'['))
            && let Ok(value) = serde_json::from_str::<Value>(text)
        {
            return json!({"JSON in a string": self.of(&value, depth + 1)});
        }
        json!("string")
    }

    fn name(&mut self, name: &str) -> String {
        if is_shown(name) {
            return name.to_owned();
        }
        let next = self.hidden.len() + 1;
        let number = self.hidden.entry(name.to_owned()).or_insert(next);
        format!("<name {number}>")
    }
}

/// Whether a name consists of words of schemas alone.
fn is_shown(name: &str) -> bool {
    if WHOLE.contains(&name) {
        return true;
    }
    let is_plain = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(is_plain) {
        return false;
    }
    words(name)
        .iter()
        .all(|word| WORDS.contains(&word.as_str()))
}

/// The words of `camelCase`, `PascalCase`, `snake_case` or `UPPER_CASE`, in lower case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for part in name.split('_').filter(|part| !part.is_empty()) {
        let mut was_upper = true;
        let mut word = String::new();
        for letter in part.chars() {
            let is_upper = letter.is_ascii_uppercase();
            if is_upper && !was_upper && !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            was_upper = is_upper;
            word.push(letter.to_ascii_lowercase());
        }
        words.push(word);
    }
    words
}

/// Names that are known as they stand, though they are not words alone.
const WHOLE: [&str; 12] = [
    "detail-type",
    "specversion",
    "datacontenttype",
    "dataschema",
    "entitlementsUpdatedV2",
    "usageUpdatedV2",
    "entitlementsV2",
    "awsRegion",
    "s3BucketName",
    "s3Key",
    "eventID",
    "SigningCertURL",
];

/// Words of the vendor's published schemas and of the usual envelopes.
#[rustfmt::skip]
const WORDS: &[&str] = &[
    "access", "according", "account", "action", "active", "add", "addon", "additional", "after", "all", "amount",
    "anchor", "api", "application", "arn", "array", "at", "attributes", "aws", "balance", "balances", "batch", "before", "billing",
    "body", "bus", "calculated", "cause", "change", "changed", "changes", "charge", "class", "code", "config",
    "configuration", "consumed", "content", "context", "correlation", "cost", "count", "coupon", "create", "created",
    "credit", "credits", "currency", "current", "currents", "customer", "customers", "data", "date", "datum", "delete",
    "deleted", "delivery", "denied", "description", "detail", "details", "display", "edge", "effective", "enable",
    "enabled", "encoded", "encoding", "end", "entitlement", "entitlements", "entity", "entries", "enum", "environment",
    "error", "errors", "event", "events", "external", "feature", "features", "first", "from", "global", "grant",
    "granted", "group", "has", "header", "headers", "hidden", "id", "ids", "index", "info", "input", "is", "item",
    "items", "key", "kind", "last", "level", "limit", "list", "md", "measurement", "measurements", "message",
    "messages", "meta", "metadata", "meter", "metered", "method", "model", "monthly", "name", "new", "next", "node",
    "object", "of", "old", "operation", "order", "original", "output", "owner", "package", "page", "parent", "partition",
    "payload", "period", "plan", "plans", "plural", "previous", "price", "product", "promotional", "properties",
    "property", "published", "query", "rate", "reason", "record", "records", "ref", "reference", "region", "remaining",
    "report", "reported", "request", "requested", "reset", "resource", "resources", "response", "result", "results",
    "schema", "sdk", "sent", "sequence", "server", "service", "set", "signature", "signing", "singular", "size", "soft",
    "source", "start", "state", "states", "status", "subject", "subscribe", "subscription", "subscriptions", "tag",
    "tags", "tenant", "text", "time", "timestamp", "to", "topic", "total", "trace", "trial", "type", "typename", "unit",
    "units", "unlimited", "unsubscribe", "until", "update", "updated", "updates", "url", "usage", "user", "valid",
    "value", "values", "variables", "version", "weekly", "yearly",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_schemas_are_shown_and_names_that_are_data_are_not() {
        for shown in [
            "customerId",
            "__typename",
            "entitlementsUpdatedAt",
            "MessageAttributes",
            "usage_period_end",
            "detail-type",
            "PAYLOAD",
        ] {
            assert!(is_shown(shown), "{shown}");
        }
        for hidden in [
            "acme",
            "feature-seats",
            "customer-1",
            "customer1",
            "a@example.com",
            "",
            "customer Id",
            "cus_8fGh",
            "id\n",
            &"id".repeat(100),
        ] {
            assert!(!is_shown(hidden), "{hidden}");
        }
        // An entry with a capital or a digit would match nothing.
        for word in WORDS {
            assert_eq!(words(word), [*word]);
        }
    }

    #[test]
    fn no_value_and_no_name_that_is_data_is_in_a_skeleton() {
        let body = json!({
            "type": "x.secret", "customer": {"id": "acme-secret", "vip-secret": true},
            "entitlements": {"seats-secret": {"usageLimit": 10, "metadata": {"seats-secret": null}}, "sso-secret": {"usageLimit": 7}},
            "list": [1, 2, "secret", "more secret"],
            "Message": "{\"customerId\":\"secret\",\"deep-secret\":[]}",
        });
        let shape = skeleton(&body.to_string());
        assert!(!shape.to_string().contains("secret"), "{shape}");
        assert_eq!(
            shape,
            json!({
                "type": "string", "customer": {"id": "string", "<name 2>": "boolean"},
                "entitlements": {"<name 3>": {"usageLimit": "number", "metadata": {"<name 3>": "null"}},
                    "<name 4>": {"usageLimit": "number"}},
                "list": ["number", "string"],
                "Message": {"JSON in a string": {"customerId": "string", "<name 1>": []}},
            })
        );
        assert_eq!(skeleton("secret"), json!("not JSON"));
        // A map by ids shows one of those that are alike.
        let map = skeleton(r#"{"features":{"a1":{"id":"x"},"b2":{"id":"y"},"c3":7}}"#);
        let expected = json!({"features": {"<name 1>": {"id": "string"}, "<name 3>": "number"}});
        assert_eq!(map, expected);
    }

    #[test]
    fn a_hostile_body_is_cut() {
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(skeleton(&deep).to_string().contains("cut"));
        let wide = format!("[{}1]", r#"{"a":1},"#.repeat(50_000));
        assert!(skeleton(&wide).to_string().len() < 10_000);
    }
}
