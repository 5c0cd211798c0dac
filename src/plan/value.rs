//! The JSON that readers find, as `JSON.stringify` of the SDK's own objects spells it.

use std::collections::HashMap;

use crate::message::{Entitlement, Number, Usage};

/// The entitlements of an owner: feature id to entitlement. No list is `{}`.
pub fn entitlements(each: &[&Entitlement<'_>]) -> String {
    let mut json = Json(String::with_capacity(2 + each.len() * 480));
    json.push('{');
    for entitlement in in_object_order(each.to_vec()) {
        json.key(feature_id(entitlement));
        entry(&mut json, entitlement);
    }
    json.push('}');
    json.0
}

/// Why the customer as a whole is denied.
pub fn metadata(access_denied_reason: Option<&str>) -> String {
    let mut json = Json(String::new());
    json.push('{');
    json.field("accessDeniedReason");
    match access_denied_reason {
        Some(reason) => json.string(reason),
        None => json.raw("null"),
    }
    json.push('}');
    json.0
}

/// What a usage key holds; unknown periods are omitted.
pub fn usage(usage: &Usage<'_>) -> String {
    let mut json = Json(String::with_capacity(96));
    json.push('{');
    json.field("currentUsage");
    json.raw(usage.current.as_str());
    json.number("usagePeriodStart", usage.period_start.as_ref());
    json.number("usagePeriodEnd", usage.period_end.as_ref());
    json.push('}');
    json.0
}

/// One entitlement for each feature: the last said of it, in the place of the first, as a
/// JavaScript `Map` keeps them.
pub fn last_of_each<'a, 'b>(list: &'a [Entitlement<'b>]) -> Vec<&'a Entitlement<'b>> {
    let mut places = HashMap::with_capacity(list.len());
    let mut kept: Vec<&Entitlement<'b>> = Vec::with_capacity(list.len());
    for entitlement in list {
        match places.entry(feature_id(entitlement)) {
            std::collections::hash_map::Entry::Occupied(place) => kept[*place.get()] = entitlement,
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(entitlement);
            }
        }
    }
    kept
}

/// JavaScript objects keep keys that look like array indices first, in ascending order.
fn in_object_order<'a, 'b>(mut list: Vec<&'a Entitlement<'b>>) -> Vec<&'a Entitlement<'b>> {
    list.sort_by_key(|entitlement| array_index(feature_id(entitlement)).unwrap_or(u32::MAX));
    list
}

fn array_index(key: &str) -> Option<u32> {
    let canonical =
        key == "0" || (key.starts_with(|c: char| c.is_ascii_digit()) && !key.starts_with('0'));
    key.parse()
        .ok()
        .filter(|index| canonical && *index != u32::MAX)
}

fn feature_id<'a>(entitlement: &'a Entitlement<'_>) -> &'a str {
    entitlement
        .feature
        .as_ref()
        .map_or("", |feature| &feature.id)
}

fn entry(json: &mut Json, entitlement: &Entitlement<'_>) {
    json.raw(r#"{"calculatedEntitlement":{"#);
    if let Some(feature) = &entitlement.feature {
        json.raw(r#""feature":{"#);
        json.field("id");
        json.string(&feature.id);
        json.field("featureType");
        json.string(feature.feature_type.as_str());
        if let Some(meter) = feature.meter_type {
            json.field("meterType");
            json.string(meter.as_str());
        }
        json.field("units");
        json.string(&feature.units);
        json.field("unitsPlural");
        json.string(&feature.units_plural);
        json.push('}');
    }
    if let Some(resource) = &entitlement.resource {
        json.field("resourceId");
        json.string(resource);
    }
    json.field("usageLimit");
    json.raw(
        entitlement
            .usage_limit
            .as_ref()
            .map_or("null", Number::as_str),
    );
    json.field("hasUnlimitedUsage");
    json.bool(entitlement.unlimited);
    json.field("hasSoftLimit");
    json.bool(entitlement.soft_limit);
    if let Some(reason) = &entitlement.access_denied_reason {
        json.field("accessDeniedReason");
        json.string(reason);
    }
    json.field("enumValues");
    json.push('[');
    for value in &entitlement.enum_values {
        json.separate();
        json.string(value);
    }
    json.push(']');
    json.number("validUntil", entitlement.valid_until.as_ref());
    if let Some(rate) = &entitlement.credit_rate {
        json.field("creditRate");
        json.push('{');
        json.field("amount");
        json.raw(rate.amount.as_str());
        json.field("currencyId");
        json.string(&rate.currency);
        json.push('}');
    }
    json.raw(r#"},"featureUsage":{"#);
    json.field("resetPeriod");
    match &entitlement.reset_period {
        Some(period) => json.string(period),
        None => json.raw("null"),
    }
    json.field("resetPeriodConfiguration");
    match &entitlement.reset_configuration {
        Some(configuration) => {
            json.push('{');
            json.field("__typename");
            json.string(&configuration.type_name);
            if let Some((field, value)) = &configuration.according_to {
                json.field(field);
                json.string(value);
            }
            json.push('}');
        }
        None => json.raw("null"),
    }
    json.field("currentUsage");
    json.raw(entitlement.usage.current.as_str());
    json.number("usagePeriodAnchor", entitlement.period_anchor.as_ref());
    json.number("usagePeriodStart", entitlement.usage.period_start.as_ref());
    json.number("usagePeriodEnd", entitlement.usage.period_end.as_ref());
    json.raw("}}");
}

/// A JSON text in the making. Fields are pushed in order; commas take care of themselves.
struct Json(String);

impl Json {
    fn push(&mut self, character: char) {
        self.0.push(character);
    }

    fn raw(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn separate(&mut self) {
        if !self.0.ends_with(['{', '[', ':']) {
            self.0.push(',');
        }
    }

    /// A key of a reader's making, which may need escapes.
    fn key(&mut self, key: &str) {
        self.separate();
        self.string(key);
        self.0.push(':');
    }

    /// A key of ours, which needs none.
    fn field(&mut self, name: &'static str) {
        self.separate();
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    fn bool(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    fn number(&mut self, name: &'static str, value: Option<&Number<'_>>) {
        if let Some(value) = value {
            self.field(name);
            self.raw(value.as_str());
        }
    }

    /// Escapes what `JSON.stringify` escapes, and nothing else.
    fn string(&mut self, text: &str) {
        self.0.push('"');
        let mut rest = text;
        // All three kinds are ASCII, so bytes tell them.
        let special = |&byte: &u8| byte < b' ' || byte == b'"' || byte == b'\\';
        while let Some(at) = rest.as_bytes().iter().position(special) {
            self.0.push_str(&rest[..at]);
            let escaped = rest.as_bytes()[at];
            match escaped {
                b'"' => self.0.push_str("\\\""),
                b'\\' => self.0.push_str("\\\\"),
                b'\n' => self.0.push_str("\\n"),
                b'\r' => self.0.push_str("\\r"),
                b'\t' => self.0.push_str("\\t"),
                0x08 => self.0.push_str("\\b"),
                0x0c => self.0.push_str("\\f"),
                _ => {
                    const HEX: &[u8; 16] = b"0123456789abcdef";
                    self.0.push_str("\\u00");
                    self.0.push(HEX[usize::from(escaped >> 4)] as char);
                    self.0.push(HEX[usize::from(escaped & 15)] as char);
                }
            }
            rest = &rest[at + 1..];
        }
        self.0.push_str(rest);
        self.0.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_javascript_does() {
        let mut json = Json(String::new());
        json.string("a\"b\\c\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}\u{2028}é😀/");
        assert_eq!(
            json.0,
            "\"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\u{2028}é😀/\""
        );
        for text in ["", "plain", "\"", "\\", "a\nb", "\u{1}\u{1f}é"] {
            let mut json = Json(String::new());
            json.string(text);
            assert_eq!(serde_json::from_str::<String>(&json.0).unwrap(), text);
        }
    }

    #[test]
    fn array_indices_are_told_as_javascript_does() {
        assert_eq!(array_index("0"), Some(0));
        assert_eq!(array_index("17"), Some(17));
        for no in ["", "01", "-1", "+1", "1.0", "4294967295", "x", "00"] {
            assert_eq!(array_index(no), None, "{no}");
        }
    }

    #[test]
    fn a_string_that_ends_like_punctuation_still_gets_its_comma() {
        let mut json = Json(String::new());
        json.push('{');
        json.key("a");
        json.string("{");
        json.key("b");
        json.string("[");
        json.push('}');
        assert_eq!(json.0, r#"{"a":"{","b":"["}"#);
    }
}
