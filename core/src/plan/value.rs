//! Writes the JSON values for readers, in the format of `JSON.stringify` of the SDK's objects.

use std::collections::HashMap;

use crate::message::{Entitlement, Millis, Number, Usage};

/// Returns the entitlements of an owner: feature id to entitlement. Without a list it is `{}`.
pub fn entitlements(each: &[&Entitlement<'_>]) -> String {
    let mut json = Json::with_capacity(2 + each.len() * 480);
    json.raw("{");
    for (index, entitlement) in in_object_order(each.to_vec()).into_iter().enumerate() {
        if index > 0 {
            json.raw(",");
        }
        json.string(feature_id(entitlement));
        json.raw(":");
        entry(&mut json, entitlement);
    }
    json.raw("}");
    json.into_text()
}

/// Returns the metadata: why the whole customer is denied.
pub fn metadata(access_denied_reason: Option<&str>) -> String {
    let mut json = Json::with_capacity(0);
    json.raw(r#"{"accessDeniedReason":"#);
    json.string_or_null(access_denied_reason);
    json.raw("}");
    json.into_text()
}

/// Returns the value of a usage key; unknown periods are omitted.
pub fn usage(usage: &Usage<'_>) -> String {
    let mut json = Json::with_capacity(96);
    json.raw("{");
    used(&mut json, usage, None);
    json.raw("}");
    json.into_text()
}

/// Keeps one entitlement for each feature: the last one, at the place of the first, as a
/// JavaScript `Map` does.
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

/// Sorts keys as JavaScript objects do: those that look like array indices first, in ascending order.
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
        json.raw(r#""feature":{"id":"#);
        json.string(&feature.id);
        if let Some(feature_type) = &feature.feature_type {
            json.raw(r#","featureType":"#);
            json.string(feature_type.as_str());
        }
        if let Some(meter) = &feature.meter_type {
            json.raw(r#","meterType":"#);
            json.string(meter.as_str());
        }
        json.raw(r#","units":"#);
        json.string(&feature.units);
        json.raw(r#","unitsPlural":"#);
        json.string(&feature.units_plural);
        json.raw("},");
    }
    if let Some(resource) = &entitlement.resource {
        json.raw(r#""resourceId":"#);
        json.string(resource);
        json.raw(",");
    }
    json.raw(r#""usageLimit":"#);
    let limit = entitlement.usage_limit.as_ref();
    json.raw(limit.map_or("null", Number::as_str));
    json.raw(r#","hasUnlimitedUsage":"#);
    json.bool(entitlement.unlimited);
    json.raw(r#","hasSoftLimit":"#);
    json.bool(entitlement.soft_limit);
    if let Some(reason) = &entitlement.access_denied_reason {
        json.raw(r#","accessDeniedReason":"#);
        json.string(reason);
    }
    json.raw(r#","enumValues":["#);
    for (index, value) in entitlement.enum_values.iter().enumerate() {
        if index > 0 {
            json.raw(",");
        }
        json.string(value);
    }
    json.raw("]");
    if let Some(until) = &entitlement.valid_until {
        json.raw(r#","validUntil":"#);
        json.raw(until.as_str());
    }
    if let Some(rate) = &entitlement.credit_rate {
        json.raw(r#","creditRate":{"amount":"#);
        json.raw(rate.amount.as_str());
        json.raw(r#","currencyId":"#);
        json.string(&rate.currency);
        json.raw("}");
    }
    json.raw(r#"},"featureUsage":{"resetPeriod":"#);
    json.string_or_null(entitlement.reset_period.as_deref());
    json.raw(r#","resetPeriodConfiguration":"#);
    match &entitlement.reset_configuration {
        Some(configuration) => {
            json.raw(r#"{"__typename":"#);
            json.string(&configuration.type_name);
            if let Some((field, value)) = &configuration.according_to {
                json.raw(",");
                json.string(field);
                json.raw(":");
                json.string(value);
            }
            json.raw("},");
        }
        None => json.raw("null,"),
    }
    used(json, &entitlement.usage, entitlement.period_anchor);
    json.raw("}}");
}

fn used(json: &mut Json, usage: &Usage<'_>, anchor: Option<Millis>) {
    json.raw(r#""currentUsage":"#);
    json.raw(usage.current.as_str());
    for (field, time) in [
        (r#","usagePeriodAnchor":"#, anchor),
        (r#","usagePeriodStart":"#, usage.period_start),
        (r#","usagePeriodEnd":"#, usage.period_end),
    ] {
        if let Some(time) = time {
            json.raw(field);
            json.raw(itoa::Buffer::new().format(time));
        }
    }
}

/// A JSON text under construction.
struct Json(Vec<u8>);

impl Json {
    fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    fn into_text(self) -> String {
        // Only valid UTF-8 was written, so nothing is replaced.
        String::from_utf8(self.0)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    fn raw(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    fn bool(&mut self, value: bool) {
        self.raw(if value { "true" } else { "false" });
    }

    fn string_or_null(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None => self.raw("null"),
        }
    }

    /// Writes a string: serde_json escapes the characters that `JSON.stringify` escapes, in the same way.
    fn string(&mut self, text: &str) {
        // Writing a text to memory cannot fail.
        let _ = serde_json::to_writer(&mut self.0, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_javascript_does() {
        let mut json = Json::with_capacity(0);
        json.string("a\"b\\c\n\r\t\u{8}\u{c}\0\u{1f}\u{7f}\u{2028}é😀/");
        assert_eq!(
            json.into_text(),
            "\"a\\\"b\\\\c\\n\\r\\t\\b\\f\\u0000\\u001f\u{7f}\u{2028}é😀/\""
        );
        for text in ["", "plain", "\"", "\\", "a\nb", "\u{1}\u{1f}é"] {
            let mut json = Json::with_capacity(0);
            json.string(text);
            assert_eq!(
                serde_json::from_str::<String>(&json.into_text()).unwrap(),
                text
            );
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
}
