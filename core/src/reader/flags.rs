//! Evaluates entitlements as flags of OpenFeature's remote evaluation protocol.
//!
//! | key | value |
//! |---|---|
//! | `<featureId>` | whether the customer may use it |
//! | `<featureId>@limit`, `@usage`, `@remaining` | numbers; none where it is unlimited |
//! | `<featureId>@values` | `{"values": […]}`, the granted values of an enum |
//! | `<featureId>@entitlement` | all of it, as an object |

use serde_json::{Map, Number, Value, json};

use super::graphql::iso;
use super::{Access, Entry, Kind, NO_CUSTOMER, NO_FEATURE, Request, State};

/// An evaluated flag.
#[derive(Debug, Clone, PartialEq)]
pub struct Flag {
    /// `None`: the caller uses its default.
    pub value: Option<Value>,
    pub is_granted: bool,
    pub metadata: Map<String, Value>,
}

/// Why a flag cannot be evaluated; names no feature.
pub type NotEvaluated = &'static str;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aspect {
    Access,
    Limit,
    Usage,
    Remaining,
    Values,
    Whole,
}

const ASPECTS: [(&str, Aspect); 5] = [
    ("@limit", Aspect::Limit),
    ("@usage", Aspect::Usage),
    ("@remaining", Aspect::Remaining),
    ("@values", Aspect::Values),
    ("@entitlement", Aspect::Whole),
];

/// Evaluates one flag. An unknown feature or customer is denied.
pub fn flag(state: &State, key: &str, request: &Request, now: f64) -> Result<Flag, NotEvaluated> {
    // A feature whose id ends like an aspect takes precedence.
    if let Some(entry) = state.find(key, now) {
        return of_entry(&entry, Aspect::Access, request);
    }
    let found = ASPECTS
        .into_iter()
        .find_map(|(suffix, aspect)| Some((key.strip_suffix(suffix)?, aspect)));
    let (feature, aspect) = found.unwrap_or((key, Aspect::Access));
    match state.find(feature, now) {
        Some(entry) => of_entry(&entry, aspect, request),
        None => Ok(absent(state, aspect)),
    }
}

/// Evaluates every flag of a customer: the access and the aspects of each feature.
pub fn flags(
    state: &State,
    request: &Request,
    now: f64,
) -> Vec<(String, Result<Flag, NotEvaluated>)> {
    let mut flags = Vec::new();
    for entry in state.entries(now) {
        let feature = &entry.entitlement.feature;
        flags.push((feature.clone(), of_entry(&entry, Aspect::Access, request)));
        for (suffix, aspect) in ASPECTS {
            let is_numeric = matches!(entry.entitlement.kind, Kind::Numeric | Kind::Metered);
            let has = match aspect {
                Aspect::Limit => is_numeric,
                Aspect::Usage | Aspect::Remaining => entry.entitlement.kind == Kind::Metered,
                Aspect::Values => entry.entitlement.kind == Kind::Enum,
                Aspect::Access | Aspect::Whole => false,
            };
            if has {
                flags.push((
                    format!("{feature}{suffix}"),
                    of_entry(&entry, aspect, request),
                ));
            }
        }
    }
    flags
}

fn of_entry(entry: &Entry, aspect: Aspect, request: &Request) -> Result<Flag, NotEvaluated> {
    let it = &entry.entitlement;
    let access = entry.decide(request);
    let (is_granted, reason) = match &access {
        Access::Granted => (true, None),
        Access::Denied(reason) => (false, Some(reason.as_str())),
        Access::Unreadable(why) => return Err(why),
    };
    let usage = it.usage.as_ref().map(|usage| usage.answered());
    let mut metadata = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            metadata.insert(name.to_owned(), value);
        }
    };
    put("featureType", it.kind.as_str().into());
    put("accessDeniedReason", reason.into());
    if it.is_limited() {
        put("unlimited", it.unlimited.into());
        put("usageLimit", number(&it.limit));
        put("currentUsage", usage.as_ref().map_or(Value::Null, number));
        put("softLimit", it.soft_limit.into());
        put(
            "usagePeriodEnd",
            iso(it.period_end().filter(|_| usage.is_some())),
        );
    }
    let value = match aspect {
        Aspect::Access => Some(is_granted.into()),
        Aspect::Limit if it.unlimited => None,
        Aspect::Limit => granted_number(entry, &it.limit),
        Aspect::Usage => usage.as_ref().map(number).filter(Value::is_number),
        Aspect::Remaining if it.unlimited => None,
        Aspect::Remaining => remaining(entry, usage.as_ref()),
        Aspect::Values => Some(json!({"values": granted_values(entry)})),
        Aspect::Whole => Some(whole(entry, is_granted, reason)),
    };
    Ok(Flag {
        value,
        is_granted,
        metadata,
    })
}

/// Converts a number to JSON that clients accept as a number.
fn number(value: &Value) -> Value {
    match value {
        Value::Number(_) => value.clone(),
        _ => Value::Null,
    }
}

/// An expired entitlement grants nothing.
fn granted_number(entry: &Entry, value: &Value) -> Option<Value> {
    match entry.is_expired {
        true => Some(0.into()),
        false => Some(number(value)).filter(Value::is_number),
    }
}

fn granted_values(entry: &Entry) -> &[String] {
    match entry.is_expired {
        true => &[],
        false => &entry.entitlement.enum_values,
    }
}

/// Returns the limit minus the usage, at least zero. Whole numbers stay whole.
fn remaining(entry: &Entry, usage: Option<&Value>) -> Option<Value> {
    if entry.is_expired {
        return Some(0.into());
    }
    let (limit, usage) = (&entry.entitlement.limit, usage?);
    if let (Some(limit), Some(usage)) = (limit.as_i64(), usage.as_i64()) {
        return Some(limit.saturating_sub(usage).max(0).into());
    }
    let left = (limit.as_f64()? - usage.as_f64()?).max(0.0);
    Number::from_f64(left).map(Value::Number)
}

fn whole(entry: &Entry, is_granted: bool, reason: Option<&str>) -> Value {
    let it = &entry.entitlement;
    json!({
        "feature": it.feature,
        "type": it.kind.as_str(),
        "hasAccess": is_granted,
        "accessDeniedReason": reason,
        "isUnlimited": it.unlimited,
        "hasSoftLimit": it.soft_limit,
        "usageLimit": number(&it.limit),
        "currentUsage": it.usage.as_ref().map_or(Value::Null, |usage| number(&usage.answered())),
        "enumValues": granted_values(entry),
        "resetPeriod": it.reset_period,
        "usagePeriodEnd": iso(it.period_end().filter(|_| it.usage.is_some())),
        "validUntil": iso(it.valid_until),
    })
}

/// Evaluates a feature for which the customer has no entitlement.
fn absent(state: &State, aspect: Aspect) -> Flag {
    let reason = if state.is_empty() {
        NO_CUSTOMER
    } else {
        NO_FEATURE
    };
    let value = match aspect {
        Aspect::Access => false.into(),
        Aspect::Limit | Aspect::Usage | Aspect::Remaining => 0.into(),
        Aspect::Values => json!({"values": []}),
        Aspect::Whole => json!({"hasAccess": false, "accessDeniedReason": reason}),
    };
    let mut metadata = Map::new();
    metadata.insert("accessDeniedReason".into(), reason.into());
    Flag {
        value: Some(value),
        is_granted: false,
        metadata,
    }
}
