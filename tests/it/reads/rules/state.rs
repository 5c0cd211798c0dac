//! Random states of one owner in Redis, in the layout that the worker writes, and with what goes wrong there.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use testkit::Redis;

const PREFIX: &str = "production";
/// Far from now on both sides: a run that takes minutes changes nothing.
const HOUR: i64 = 3_600_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Numeric,
    Metered,
    Enum,
    /// A type that no SDK knows.
    Odd,
}

/// A usage key and its timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Whole,
    Missing,
    WithoutTime,
    BadTime,
    Unreadable,
}

#[derive(Debug, Clone)]
struct Feature {
    id: String,
    kind: Kind,
    entry: Value,
    usage: Value,
    kept: Kept,
    has_expired: bool,
    is_over: bool,
}

#[derive(Debug, Clone)]
pub struct State {
    resource: Option<String>,
    features: Vec<Feature>,
    /// In place of the map.
    odd_map: Option<&'static str>,
    timestamp: Option<String>,
    customer_timestamp: Option<String>,
    metadata: Option<String>,
}

/// Why we ask the Edge API where an SDK may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stricter {
    /// The entitlements have no timestamp, so nothing can be compared with them.
    TornEntitlements,
    /// The usage of this feature has no timestamp.
    TornUsage(String),
    /// The usage of this feature is missing, or cannot be read. An SDK that is asked for another does not look.
    Usage(String),
    /// This feature has expired. An SDK that is asked for another does not look.
    Expired(String),
}

impl Stricter {
    /// Whether an SDK that is asked for this feature, or for all of them, does not see it.
    pub fn holds_for(&self, asked: Option<&str>) -> bool {
        match self {
            Self::TornEntitlements | Self::TornUsage(_) => true,
            Self::Usage(feature) | Self::Expired(feature) => {
                asked.is_some_and(|asked| asked != feature)
            }
        }
    }

    pub fn is_torn(&self) -> bool {
        matches!(self, Self::TornEntitlements | Self::TornUsage(_))
    }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

fn any<T: Clone>(random: &mut fastrand::Rng, of: &[T]) -> T {
    of[random.usize(..of.len())].clone()
}

/// One time in `of`.
fn rarely(random: &mut fastrand::Rng, of: usize) -> bool {
    random.usize(..of) == 0
}

impl State {
    pub fn random(random: &mut fastrand::Rng, number: usize) -> State {
        let at = now() - random.i64(1..48) * HOUR;
        let resource = rarely(random, 3).then(|| format!("site-{number}"));
        let customer_timestamp = match random.usize(..6) {
            0 => None,
            1 => Some(at + HOUR),
            2 => Some(at),
            _ => Some(at - HOUR),
        };
        let count = random.usize(..5);
        let features = (0..count).map(|of| Feature::random(random, of, resource.as_deref()));
        let odd_maps = ["", "null", "[", "{}", "\"\"", "5"];
        State {
            features: features.collect(),
            odd_map: rarely(random, 12).then(|| any(random, &odd_maps)),
            timestamp: match random.usize(..14) {
                0 => None,
                1 => Some("soon".into()),
                _ => Some(at.to_string()),
            },
            customer_timestamp: customer_timestamp.map(|at| at.to_string()),
            metadata: match random.usize(..3) {
                0 => None,
                1 => Some(json!({"accessDeniedReason": null}).to_string()),
                _ => Some(json!({"accessDeniedReason": "NoActiveSubscription"}).to_string()),
            },
            resource,
        }
    }

    pub fn resource(&self) -> Option<&str> {
        self.resource.as_deref()
    }

    /// The ids of those that the map holds.
    pub fn features(&self) -> Vec<String> {
        match self.odd_map {
            Some(_) => Vec::new(),
            None => self.features.iter().map(|it| it.id.clone()).collect(),
        }
    }

    fn feature(&self, id: &str) -> Option<&Feature> {
        self.features.iter().find(|it| it.id == id)
    }

    pub fn kind(&self, feature: &str) -> Option<Kind> {
        self.feature(feature).map(|it| it.kind)
    }

    /// Whether the period of its usage has passed.
    pub fn is_over(&self, feature: &str) -> bool {
        self.feature(feature).is_some_and(|it| it.is_over)
    }

    /// Whether it is denied whatever is asked.
    pub fn is_denied(&self, feature: &str) -> bool {
        let reason =
            |it: &Feature| it.entry["calculatedEntitlement"]["accessDeniedReason"].is_string();
        self.feature(feature).is_some_and(reason)
    }

    pub fn has_expired(&self) -> bool {
        self.features.iter().any(|it| it.has_expired)
    }

    /// The first rule by which we ask the Edge API of what is not missing as a whole.
    pub fn stricter(&self) -> Option<Stricter> {
        if self.timestamp.as_deref().is_none_or(|at| at == "soon") {
            return Some(Stricter::TornEntitlements);
        }
        if self.odd_map.is_some() {
            return None;
        }
        let torn = |it: &&Feature| matches!(it.kept, Kept::WithoutTime | Kept::BadTime);
        if let Some(torn) = self.features.iter().find(torn) {
            return Some(Stricter::TornUsage(torn.id.clone()));
        }
        let usage = self.features.iter().find(|it| it.kept != Kept::Whole);
        let expired = self.features.iter().find(|it| it.has_expired);
        usage
            .map(|it| Stricter::Usage(it.id.clone()))
            .or(expired.map(|it| Stricter::Expired(it.id.clone())))
    }

    /// Its keys, as those of a customer.
    pub fn keys(&self, customer: &str) -> BTreeMap<String, String> {
        let of_customer = format!("{PREFIX}:c_{customer}");
        let key = match &self.resource {
            None => of_customer.clone(),
            Some(resource) => format!("{of_customer}:r_{resource}"),
        };
        let mut keys = BTreeMap::new();
        let mut put = |name: String, value: Option<String>| {
            if let Some(value) = value {
                keys.insert(name, value);
            }
        };
        let map: serde_json::Map<String, Value> = self
            .features
            .iter()
            .map(|it| (it.id.clone(), it.entry.clone()))
            .collect();
        let map = self
            .odd_map
            .map_or_else(|| json!(map).to_string(), str::to_owned);
        put(key.clone(), Some(map));
        put(format!("{key}#timestamp"), self.timestamp.clone());
        put(format!("{key}:metadata"), self.metadata.clone());
        let of_metadata = self.metadata.as_ref().and(self.timestamp.clone());
        put(format!("{key}:metadata#timestamp"), of_metadata);
        for it in self.features.iter().filter(|it| it.kind == Kind::Metered) {
            let usage = format!("{key}:f_{}", it.id);
            let at = (now() - HOUR).to_string();
            let (value, at) = match it.kept {
                Kept::Whole => (Some(it.usage.to_string()), Some(at)),
                Kept::Missing => (None, Some(at)),
                Kept::WithoutTime => (Some(it.usage.to_string()), None),
                Kept::BadTime => (Some(it.usage.to_string()), Some("later".into())),
                Kept::Unreadable => (Some("{".into()), Some(at)),
            };
            put(usage.clone(), value);
            put(format!("{usage}#timestamp"), at);
        }
        if self.resource.is_some() {
            put(
                format!("{of_customer}#timestamp"),
                self.customer_timestamp.clone(),
            );
        }
        keys
    }
}

impl Feature {
    fn random(random: &mut fastrand::Rng, of: usize, resource: Option<&str>) -> Feature {
        let kinds = [
            Kind::Boolean,
            Kind::Boolean,
            Kind::Numeric,
            Kind::Numeric,
            Kind::Metered,
            Kind::Metered,
            Kind::Metered,
            Kind::Metered,
            Kind::Enum,
            Kind::Enum,
            Kind::Odd,
        ];
        let kind = any(random, &kinds);
        let (kind_name, meters): (&str, &[Option<&str>]) = match kind {
            Kind::Boolean => ("BOOLEAN", &[None, Some("None")]),
            Kind::Numeric => ("NUMBER", &[None, Some("None")]),
            Kind::Metered => ("NUMBER", &[Some("Fluctuating"), Some("Incremental")]),
            Kind::Enum => ("ENUM", &[None, Some("None")]),
            Kind::Odd => ("COLOUR", &[None]),
        };
        let id = format!("f{of}");
        let has_expired = rarely(random, 14);
        let is_over = kind == Kind::Metered && rarely(random, 4);
        let meter = any(random, meters);
        let entry = entry(random, &id, (kind_name, meter), resource, has_expired);
        let mut usage = json!({"currentUsage": amount(random)});
        if is_over || rarely(random, 3) {
            let start = now() - 70 * 24 * HOUR;
            let end = if is_over {
                now() - 40 * 24 * HOUR
            } else {
                now() + 24 * HOUR
            };
            usage["usagePeriodStart"] = start.into();
            usage["usagePeriodEnd"] = end.into();
        }
        let kept = match random.usize(..24) {
            _ if kind != Kind::Metered => Kept::Whole,
            0 => Kept::Missing,
            1 => Kept::WithoutTime,
            2 => Kept::BadTime,
            3 => Kept::Unreadable,
            _ => Kept::Whole,
        };
        Feature {
            id,
            kind,
            entry,
            usage,
            kept,
            has_expired,
            is_over,
        }
    }
}

/// Whole, fractional, beyond 32 bits, zero, negative.
fn amount(random: &mut fastrand::Rng) -> Value {
    let amounts = [
        json!(0),
        json!(1),
        json!(4),
        json!(9.75),
        json!(10),
        json!(0.1),
        json!(-3),
    ];
    match rarely(random, 8) {
        true => json!(4_294_967_296.5),
        false => any(random, &amounts),
    }
}

/// As the worker writes it.
fn entry(
    random: &mut fastrand::Rng,
    id: &str,
    (kind, meter): (&str, Option<&str>),
    resource: Option<&str>,
    has_expired: bool,
) -> Value {
    let mut feature = json!({"id": id, "featureType": kind, "units": any(random, &["", "seat"]),
        "unitsPlural": any(random, &["", "seats"])});
    if let Some(meter) = meter {
        feature["meterType"] = meter.into();
    }
    let limit = match rarely(random, 5) {
        true => Value::Null,
        false => amount(random),
    };
    let values: [&[&str]; 3] = [&[], &["gold"], &["gold", "silver"]];
    let mut calculated = json!({"feature": feature, "usageLimit": limit, "hasUnlimitedUsage": rarely(random, 6),
        "hasSoftLimit": rarely(random, 6), "enumValues": any(random, &values)});
    if let Some(resource) = resource.filter(|_| rarely(random, 2)) {
        calculated["resourceId"] = resource.into();
    }
    if rarely(random, 5) {
        let reasons = [
            "Revoked",
            "NoActiveSubscription",
            "FeatureNotFound",
            "Unknown",
        ];
        calculated["accessDeniedReason"] = any(random, &reasons).into();
    }
    if has_expired {
        calculated["validUntil"] = (now() - HOUR).into();
    } else if rarely(random, 4) {
        calculated["validUntil"] = (now() + 24 * HOUR).into();
    }
    if rarely(random, 6) {
        calculated["creditRate"] = json!({"amount": 2, "currencyId": "tokens"});
    }
    let mut usage =
        json!({"resetPeriod": null, "resetPeriodConfiguration": null, "currentUsage": 0});
    if rarely(random, 3) {
        usage["resetPeriod"] = "MONTH".into();
        usage["resetPeriodConfiguration"] = json!({"__typename": "MonthlyResetPeriodConfig", "monthlyAccordingTo": "SubscriptionStart"});
        usage["usagePeriodAnchor"] = (now() - 200 * 24 * HOUR).into();
    }
    json!({"calculatedEntitlement": calculated, "featureUsage": usage})
}

pub fn write(redis: &Redis, keys: &BTreeMap<String, String>) {
    let mut pipeline = redis::pipe();
    for (key, value) in keys {
        pipeline.set(key, value).ignore();
    }
    let _: () = pipeline.query(&mut redis.conn()).unwrap();
}

pub fn read(redis: &Redis) -> BTreeMap<String, String> {
    redis.dump("production:c_")
}
