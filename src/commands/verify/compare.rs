//! Compares a customer in Redis with the source, field by field.

use std::collections::{BTreeSet, HashMap};

use entitlement_sync::keys;
use entitlement_sync::plan::{Item, Step};
use serde::Serialize;
use serde_json::{Map, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    Missing,
    /// A value without its time, or a time without its value.
    Torn,
    Differs,
    UsageDiffers,
    /// Its time is older than the source's.
    Older,
    /// The source does not know the state that Redis holds.
    Unknown,
}

impl Drift {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Torn => "torn",
            Self::Differs => "differs",
            Self::UsageDiffers => "usage differs",
            Self::Older => "older",
            Self::Unknown => "unknown to the source",
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub drift: Drift,
    pub key: String,
    /// The path within the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    pub redis: Option<Value>,
    pub source: Option<Value>,
}

impl Finding {
    pub fn new(drift: Drift, key: &str) -> Self {
        Self {
            drift,
            key: key.to_owned(),
            field: None,
            redis: None,
            source: None,
        }
    }

    /// Returns whether a second comparison found this difference, even with other values.
    pub fn is_about_the_same(&self, other: &Self) -> bool {
        (self.drift, &self.key, &self.field) == (other.drift, &other.key, &other.field)
    }
}

/// Returns the differences between a step of the source and `held`, the values of its keys in Redis.
/// `dated`: the step's time is the source's own.
pub fn compare(step: &Step, dated: bool, held: &HashMap<String, String>) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some((entitlements, rest)) = step.items.split_first() else {
        return found;
    };
    let stamp_of = |item: &Item| held.get(&keys::timestamp(&item.key));
    if held.get(&entitlements.key).is_none() && stamp_of(entitlements).is_none() {
        return vec![Finding::new(Drift::Missing, &entitlements.key)];
    }
    for (place, item) in step.items.iter().enumerate() {
        let (value, stamp) = (held.get(&item.key), stamp_of(item));
        let (Some(value), Some(stamp)) = (value, stamp) else {
            let drift = match value.or(stamp) {
                Some(_) => Drift::Torn,
                None => Drift::Missing,
            };
            found.push(Finding::new(drift, &item.key));
            continue;
        };
        match place {
            0 => {
                of_entitlements(item, value, rest, &mut found);
                if dated && stamp.parse().is_ok_and(|stored: u64| stored < item.at) {
                    let mut finding = Finding::new(Drift::Older, &item.key);
                    finding.redis = stamp.parse::<u64>().ok().map(Value::from);
                    finding.source = Some(item.at.into());
                    found.push(finding);
                }
            }
            _ => of_usage(item, value, &mut found),
        }
    }
    found
}

/// The fields that readers take from usage keys.
const USAGE_FIELDS: [&str; 3] = ["currentUsage", "usagePeriodStart", "usagePeriodEnd"];

fn of_entitlements(item: &Item, value: &str, rest: &[Item], found: &mut Vec<Finding>) {
    let (Some(mut redis), Some(mut source)) = (object(value), object(&item.value)) else {
        return found.push(Finding::new(Drift::Differs, &item.key));
    };
    // The usage of metered features is in keys of its own and changes only there.
    for features in [&mut redis, &mut source] {
        for (feature, entitlement) in features.iter_mut() {
            let usage = entitlement.get_mut("featureUsage");
            let usage = usage.and_then(Value::as_object_mut);
            if let Some(usage) = usage.filter(|_| is_metered(feature, item, rest)) {
                USAGE_FIELDS
                    .iter()
                    .for_each(|field| drop(usage.remove(*field)));
            }
        }
    }
    let differences = differences(&redis, &source);
    push(found, Drift::Differs, &item.key, differences);
}

/// Returns whether a usage key of this feature exists.
fn is_metered(feature: &str, entitlements: &Item, rest: &[Item]) -> bool {
    rest.iter().any(|usage| {
        let infix = usage.key.strip_prefix(entitlements.key.as_str());
        infix.is_some_and(|infix| infix.ends_with(feature) && infix.len() == feature.len() + 3)
    })
}

fn of_usage(item: &Item, value: &str, found: &mut Vec<Finding>) {
    match (object(value), object(&item.value)) {
        (Some(mut redis), Some(source)) => {
            redis.retain(|field, _| USAGE_FIELDS.contains(&field.as_str()));
            let differences = differences(&redis, &source);
            push(found, Drift::UsageDiffers, &item.key, differences);
        }
        _ => found.push(Finding::new(Drift::UsageDiffers, &item.key)),
    }
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

type Difference = (String, Option<Value>, Option<Value>);

fn push(found: &mut Vec<Finding>, drift: Drift, key: &str, differences: Vec<Difference>) {
    found.extend(
        differences
            .into_iter()
            .map(|(field, redis, source)| Finding {
                field: Some(field),
                redis,
                source,
                ..Finding::new(drift, key)
            }),
    );
}

fn differences(redis: &Map<String, Value>, source: &Map<String, Value>) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", redis, source, &mut found);
    found
}

fn walk(
    path: &str,
    redis: &Map<String, Value>,
    source: &Map<String, Value>,
    found: &mut Vec<Difference>,
) {
    let fields: BTreeSet<&String> = redis.keys().chain(source.keys()).collect();
    for field in fields {
        let path = match path {
            "" => field.clone(),
            path => format!("{path}.{field}"),
        };
        // Readers treat null as absent.
        let present =
            |map: &'_ Map<String, Value>| map.get(field).filter(|it| !it.is_null()).cloned();
        match (present(redis), present(source)) {
            (Some(Value::Object(redis)), Some(Value::Object(source))) => {
                walk(&path, &redis, &source, found);
            }
            (redis, source) if is_equal(redis.as_ref(), source.as_ref()) => {}
            (redis, source) => found.push((path, redis, source)),
        }
    }
}

fn is_equal(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        // Readers treat 10 and 10.0 alike.
        (Some(Value::Number(one)), Some(Value::Number(other))) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entitlement_sync::message::{Attributes, read};
    use entitlement_sync::plan;

    fn step() -> Step {
        let body = r#"{"type":"entitlements.updated","customerId":"acme","entitlementsUpdatedAt":5,
            "entitlements":[{"feature":{"id":"f","featureType":"NUMBER","meterType":"INCREMENTAL"},
            "usageLimit":10,"currentUsage":3}]}"#;
        let reading = read(body, &Attributes::default()).unwrap();
        let change = &reading.changes[0].state;
        let mut step = plan::steps(&keys::Keys::new("p"), change, plan::Rules::default()).remove(0);
        // The answer of the source does not hold the metadata.
        step.items.remove(1);
        step
    }

    /// What Redis holds after the step, and then something of it changed.
    fn found(change: impl FnOnce(&mut HashMap<String, String>)) -> Vec<(Drift, String)> {
        let step = step();
        let mut held = HashMap::new();
        for item in &step.items {
            held.insert(item.key.clone(), item.value.clone());
            held.insert(keys::timestamp(&item.key), item.at.to_string());
        }
        change(&mut held);
        let found = compare(&step, true, &held);
        let place = |it: Finding| (it.drift, it.field.unwrap_or(it.key));
        found.into_iter().map(place).collect()
    }

    #[test]
    fn each_kind_of_drift_is_told() {
        let item = |place: usize| step().items[place].key.clone();
        let replace = |held: &mut HashMap<String, String>, place: usize, from: &str, to: &str| {
            let value = held.get_mut(&item(place)).unwrap();
            assert!(value.contains(from), "{value}");
            *value = value.replace(from, to);
        };
        assert_eq!(found(|_| {}), []);
        assert_eq!(
            found(|held| held.retain(|key, _| !key.starts_with(&item(0)))),
            [(Drift::Missing, item(0))]
        );
        assert_eq!(
            found(|held| drop(held.remove(&keys::timestamp(&item(1))))),
            [(Drift::Torn, item(1))]
        );
        assert_eq!(
            found(|held| replace(held, 0, "\"usageLimit\":10", "\"usageLimit\":11")),
            [(
                Drift::Differs,
                "f.calculatedEntitlement.usageLimit".to_owned()
            )]
        );
        assert_eq!(
            found(|held| replace(held, 0, "\"usageLimit\":10", "\"usageLimit\":10.0")),
            []
        );
        // No reader uses the copy of a metered usage in its entitlement.
        let (three, four) = ("\"currentUsage\":3", "\"currentUsage\":4");
        assert_eq!(found(|held| replace(held, 0, three, four)), []);
        assert_eq!(
            found(|held| replace(held, 1, three, four)),
            [(Drift::UsageDiffers, "currentUsage".to_owned())]
        );
        assert_eq!(
            found(|held| drop(held.insert(keys::timestamp(&item(0)), "4".into()))),
            [(Drift::Older, item(0))]
        );
        assert_eq!(
            found(|held| drop(held.insert(item(0), "{}".into()))),
            [(Drift::Differs, "f".to_owned())]
        );
    }
}
