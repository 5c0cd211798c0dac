//! The histories: who gets which message in which order, all from the seed.
//!
//! A message is a [`Spec`]: what it says at its source, and how its body spells that. From the same spec come the body
//! that is sent and the [`Fact`]s that the model is told, with the exact bytes that readers must find. The bytes are
//! spelt here by hand and share no code with the worker.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::sync::Arc;

use fastrand::Rng;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::model::{Fact, Item};

pub const PREFIX: &str = "production";
/// The first source time; each message of the story is `STEP` later than the one before.
const BASE: u64 = 1_700_000_000_000;
const STEP: u64 = 10;
const CUSTOMERS: usize = 2_000;
/// Customers of whom nothing is told but by a steady stream of entitlements: they show that messages are applied.
pub const CANARIES: usize = 10;
/// Metered features; others are neither counted nor kept in keys of their own.
const METERED: u8 = 6;
const CREDITS: u8 = 2;
const PERIOD: (u64, u64) = (1_825_027_200_000, 1_827_619_200_000);

#[derive(Debug, Clone)]
pub struct Owner {
    pub customer: String,
    pub resource: Option<String>,
}

impl Owner {
    pub fn key(&self) -> String {
        match &self.resource {
            Some(resource) => format!("{PREFIX}:c_{}:r_{resource}", self.customer),
            None => format!("{PREFIX}:c_{}", self.customer),
        }
    }

    pub fn lock(&self) -> String {
        match &self.resource {
            Some(resource) => format!("{PREFIX}-{}:{resource}", self.customer),
            None => format!("{PREFIX}-{}", self.customer),
        }
    }
}

#[derive(Debug)]
pub struct Spec {
    pub seq: u64,
    pub what: What,
}

#[derive(Debug)]
pub enum What {
    Set(Set),
    Usage { owner: usize, of: Metered, at: u64 },
    Purge { owners: Vec<usize>, at: u64 },
    Package,
    Unknown,
    Invalid(u8),
}

#[derive(Debug)]
pub struct Set {
    pub owner: usize,
    pub at: u64,
    /// Metered features, and when their usage was true where the message says so.
    metered: Vec<(u8, Option<u64>)>,
    denied: bool,
    /// Further features, to make the body large.
    bulk: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metered {
    Feature(u8),
    Credit(u8),
}

impl Metered {
    pub const ALL: [Metered; (METERED + CREDITS) as usize] = [
        Metered::Feature(0),
        Metered::Feature(1),
        Metered::Feature(2),
        Metered::Feature(3),
        Metered::Feature(4),
        Metered::Feature(5),
        Metered::Credit(0),
        Metered::Credit(1),
    ];

    pub fn suffix(self) -> String {
        match self {
            Metered::Feature(feature) => format!(":f_feature-{feature}"),
            Metered::Credit(currency) => format!(":credit_currency-{currency}"),
        }
    }
}

impl Spec {
    pub fn kind(&self) -> &'static str {
        match &self.what {
            What::Set(set) if set.bulk > 0 => "entitlements oversize",
            What::Set(_) => "entitlements",
            What::Usage { of, .. } => match of {
                Metered::Feature(_) => "usage",
                Metered::Credit(_) => "credit",
            },
            What::Purge { owners, .. } if owners.len() > 1 => "purge of several",
            What::Purge { .. } => "purge",
            What::Package => "package published",
            What::Unknown => "unknown kind",
            What::Invalid(_) => "invalid",
        }
    }

    /// The one owner that it is of.
    pub fn owner(&self) -> Option<usize> {
        match &self.what {
            What::Set(set) => Some(set.owner),
            What::Usage { owner, .. } => Some(*owner),
            _ => None,
        }
    }

    pub fn at(&self) -> Option<u64> {
        match &self.what {
            What::Set(set) => Some(set.at),
            What::Usage { at, .. } | What::Purge { at, .. } => Some(*at),
            What::Package | What::Unknown | What::Invalid(_) => None,
        }
    }

    /// Found in the body, so that a message in a dead-letter queue can be told.
    pub fn marker(&self) -> String {
        format!("chaos-{}", self.seq)
    }

    /// What the message says, of each owner.
    pub fn facts(&self) -> Vec<(usize, Fact)> {
        match &self.what {
            What::Set(set) => vec![(set.owner, set.fact(self.seq))],
            What::Usage { owner, of, at } => vec![(
                *owner,
                Fact::Usage(Item {
                    of: *of,
                    at: *at,
                    value: usage_value(current(self.seq, 0), periods(self.seq, *of)),
                }),
            )],
            What::Purge { owners, at } => owners
                .iter()
                .map(|owner| (*owner, Fact::Purge { at: *at }))
                .collect(),
            What::Package | What::Unknown | What::Invalid(_) => Vec::new(),
        }
    }

    pub fn body(&self, owners: &[Owner]) -> String {
        let seq = self.seq;
        let marker = self.marker();
        let event = match &self.what {
            What::Set(set) => set.event(seq, &owners[set.owner]),
            What::Usage { owner, of, at } => usage_event(seq, &owners[*owner], *of, *at),
            What::Purge { owners: purged, at } => purge_event(seq, owners, purged, *at),
            What::Package => {
                json!({"type": "package.published", "timestamp": iso(BASE), "package": {"id": "p"}})
            }
            What::Unknown => {
                json!({"type": format!("coupon.kind-{}", seq % 3), "timestamp": iso(BASE)})
            }
            What::Invalid(0) => {
                return format!(r#"{{"type":"entitlements.updated","messageId":"{marker}","cust"#);
            }
            What::Invalid(1) => {
                json!({"type": "measurement.reported", "timestamp": iso(BASE), "currentUsage": 3, "feature": {"id": "feature-0"}})
            }
            What::Invalid(2) => {
                json!({"type": "ENTITLEMENTS_UPDATED", "entitlementsUpdatedAt": iso(BASE * 2), "customer": {"id": owners[0].customer},
                "entitlements": [graphql(&Feature::metered(0, "1".into(), None)), {"feature": {"id": "feature-9", "featureType": "SOMETHING"}}]})
            }
            What::Invalid(_) => {
                json!({"type": "CUSTOMER_DELETED", "timestamp": "yesterday", "customerId": owners[0].customer})
            }
        };
        match &self.what {
            // A wrapping might make it larger than SQS takes.
            What::Set(set) if set.bulk > 0 => event.to_string(),
            _ => wrap(seq, event, &marker),
        }
    }
}

/// In every wrapping that is accepted.
fn wrap(seq: u64, mut event: Value, marker: &str) -> String {
    event["messageId"] = marker.into();
    let kind = event["type"].as_str().map(str::to_owned);
    match (seq % 11, kind) {
        (0, _) => json!({"Type": "Notification", "MessageId": "sns", "Message": event.to_string()})
            .to_string(),
        (1, Some(kind)) => {
            json!({"version": "0", "detail-type": kind, "detail": event}).to_string()
        }
        _ => event.to_string(),
    }
}

impl Set {
    fn features(&self, seq: u64) -> Vec<Feature> {
        let mut features: Vec<Feature> = self
            .metered
            .iter()
            .enumerate()
            .map(|(place, (id, usage_at))| {
                Feature::metered(*id, current(seq, place as u64), *usage_at)
            })
            .collect();
        if seq.is_multiple_of(3) && !features.is_empty() {
            features.push(Feature::plain("flag", "BOOLEAN", seq));
            features.push(Feature::plain("plan", "ENUM", seq));
        }
        for number in 0..self.bulk {
            features.push(Feature::plain(&format!("bulk-{number}"), "BOOLEAN", seq));
        }
        features
    }

    pub fn fact(&self, seq: u64) -> Fact {
        let features = self.features(seq);
        Fact::Set {
            at: self.at,
            entitlements: entitlements_value(&features),
            metadata: match self.reason(seq) {
                Some(reason) => format!(r#"{{"accessDeniedReason":"{reason}"}}"#).into(),
                None => r#"{"accessDeniedReason":null}"#.into(),
            },
            usages: self.usages(seq),
        }
    }

    pub fn entitlements(&self, seq: u64) -> Arc<str> {
        entitlements_value(&self.features(seq))
    }

    pub fn usages(&self, seq: u64) -> Vec<Item> {
        self.metered
            .iter()
            .enumerate()
            .map(|(place, (id, usage_at))| Item {
                of: Metered::Feature(*id),
                at: usage_at.unwrap_or(self.at),
                value: usage_value(current(seq, place as u64), Some(PERIOD)),
            })
            .collect()
    }

    fn reason(&self, seq: u64) -> Option<String> {
        self.denied.then(|| format!("NoActiveSubscription-{seq}"))
    }

    fn event(&self, seq: u64, owner: &Owner) -> Value {
        let features = self.features(seq);
        let (customer, resource) = (&owner.customer, &owner.resource);
        let reason = self.reason(seq);
        match seq % 3 {
            // As GraphQL subscriptions have it; an empty list would have no time.
            0 if !features.is_empty() => {
                let newest = seq as usize % features.len();
                let list: Vec<Value> = features
                    .iter()
                    .enumerate()
                    .map(|(place, feature)| {
                        let mut entitlement = graphql(feature);
                        let older = if place == newest { 0 } else { place as u64 };
                        entitlement["entitlementUpdatedAt"] = time(seq, self.at - older);
                        entitlement
                    })
                    .collect();
                json!({"data": {"entitlementsUpdated": {"customerId": customer, "resourceId": resource,
                    "accessDeniedReason": reason, "entitlements": list}}})
            }
            1 => {
                json!({"type": "ENTITLEMENTS_UPDATED", "timestamp": time(seq, self.at), "payload": {"customerId": customer,
                    "resourceId": resource, "accessDeniedReason": reason,
                    "entitlements": features.iter().map(graphql).collect::<Vec<_>>()}})
            }
            _ => {
                json!({"type": "entitlements.updated", "timestamp": iso(self.at + 500), "environmentId": "e",
                    "entitlementsUpdatedAt": time(seq, self.at), "customer": {"id": customer, "name": "C"},
                    "resource": resource.as_ref().map(|id| json!({"id": id})), "accessDeniedReason": reason,
                    "entitlements": features.iter().map(webhook).collect::<Vec<_>>()})
            }
        }
    }
}

struct Feature {
    id: String,
    feature_type: &'static str,
    meter_type: Option<&'static str>,
    current: String,
    limit: Option<u64>,
    enum_values: Vec<String>,
    usage_at: Option<u64>,
}

impl Feature {
    fn metered(id: u8, current: String, usage_at: Option<u64>) -> Feature {
        Feature {
            id: format!("feature-{id}"),
            feature_type: "NUMBER",
            meter_type: Some(if id.is_multiple_of(2) {
                "Fluctuating"
            } else {
                "Incremental"
            }),
            limit: (!id.is_multiple_of(3)).then_some(1_000_000),
            current,
            enum_values: Vec::new(),
            usage_at,
        }
    }

    fn plain(id: &str, feature_type: &'static str, seq: u64) -> Feature {
        Feature {
            id: id.to_owned(),
            feature_type,
            meter_type: None,
            limit: None,
            current: "0".into(),
            enum_values: match feature_type {
                "ENUM" => vec!["a".into(), format!("v{seq}")],
                _ => Vec::new(),
            },
            usage_at: None,
        }
    }

    fn is_metered(&self) -> bool {
        self.meter_type.is_some()
    }

    fn current(&self) -> Value {
        serde_json::from_str(&self.current).unwrap()
    }
}

fn webhook(feature: &Feature) -> Value {
    let metered = feature.is_metered();
    json!({"feature": {"id": feature.id, "name": "X", "featureType": feature.feature_type,
            "meterType": feature.meter_type.map(str::to_uppercase), "unit": metered.then_some("call"),
            "units": metered.then_some("calls"), "status": "NEW"},
        "usageLimit": feature.limit, "hasUnlimitedUsage": false, "hasSoftLimit": metered, "currentUsage": feature.current(),
        "usagePeriodAnchor": null, "usagePeriodStart": metered.then(|| iso(PERIOD.0)),
        "usagePeriodEnd": metered.then_some(PERIOD.1), "resetPeriod": metered.then_some("MONTH"),
        "resetPeriodConfiguration": metered.then(|| json!({"accordingTo": "SubscriptionStart"})),
        "enumValues": (!feature.enum_values.is_empty()).then_some(&feature.enum_values), "usageUpdatedAt": feature.usage_at.map(iso)})
}

fn graphql(feature: &Feature) -> Value {
    let metered = feature.is_metered();
    json!({"__typename": "Entitlement", "isGranted": true, "accessDeniedReason": null, "usageLimit": feature.limit,
        "hasUnlimitedUsage": false, "hasSoftLimit": metered, "currentUsage": feature.current(),
        "enumValues": (!feature.enum_values.is_empty()).then_some(&feature.enum_values),
        "usageUpdatedAt": feature.usage_at, "usagePeriodStart": metered.then_some(PERIOD.0),
        "usagePeriodEnd": metered.then(|| iso(PERIOD.1)), "resetPeriod": metered.then_some("MONTH"),
        "resetPeriodConfiguration": metered.then(|| json!({"__typename": "MonthlyResetPeriodConfig", "monthlyAccordingTo": "SubscriptionStart"})),
        "feature": {"__typename": "EntitlementFeature", "refId": feature.id, "featureType": feature.feature_type,
            "meterType": feature.meter_type, "featureUnits": metered.then_some("call"), "featureUnitsPlural": metered.then_some("calls")}})
}

/// What readers must find, as the contract spells it.
fn entitlements_value(features: &[Feature]) -> Arc<str> {
    let mut text = String::from("{");
    for (place, feature) in features.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let (id, of) = (&feature.id, feature.feature_type);
        let metered = feature.is_metered();
        let units = if metered {
            r#""units":"call","unitsPlural":"calls""#
        } else {
            r#""units":"","unitsPlural":"""#
        };
        let meter = feature
            .meter_type
            .map_or(String::new(), |meter| format!(r#""meterType":"{meter}","#));
        let limit = feature
            .limit
            .map_or("null".to_owned(), |limit| limit.to_string());
        let values = serde_json::to_string(&feature.enum_values).unwrap();
        let usage = if metered {
            format!(
                r#""resetPeriod":"MONTH","resetPeriodConfiguration":{{"__typename":"MonthlyResetPeriodConfig","monthlyAccordingTo":"SubscriptionStart"}},"currentUsage":{},"usagePeriodStart":{},"usagePeriodEnd":{}"#,
                feature.current, PERIOD.0, PERIOD.1
            )
        } else {
            r#""resetPeriod":null,"resetPeriodConfiguration":null,"currentUsage":0"#.to_owned()
        };
        let _ = write!(
            text,
            r#""{id}":{{"calculatedEntitlement":{{"feature":{{"id":"{id}","featureType":"{of}",{meter}{units}}},"usageLimit":{limit},"hasUnlimitedUsage":false,"hasSoftLimit":{metered},"enumValues":{values}}},"featureUsage":{{{usage}}}}}"#
        );
    }
    text.push('}');
    text.into()
}

fn usage_value(current: String, periods: Option<(u64, u64)>) -> Arc<str> {
    match periods {
        Some((start, end)) => format!(
            r#"{{"currentUsage":{current},"usagePeriodStart":{start},"usagePeriodEnd":{end}}}"#
        ),
        None => format!(r#"{{"currentUsage":{current}}}"#),
    }
    .into()
}

/// Unlike that of any other message; now and then a fraction.
fn current(seq: u64, place: u64) -> String {
    let fraction = if seq.is_multiple_of(7) { ".5" } else { "" };
    format!("{}{fraction}", seq * 10 + place)
}

/// The public credit shapes carry no start of a period.
fn periods(seq: u64, of: Metered) -> Option<(u64, u64)> {
    match of {
        Metered::Feature(_) => (!seq.is_multiple_of(5)).then_some(PERIOD),
        Metered::Credit(_) => None,
    }
}

fn usage_event(seq: u64, owner: &Owner, of: Metered, at: u64) -> Value {
    let (customer, resource) = (&owner.customer, &owner.resource);
    let current: Value = serde_json::from_str(&current(seq, 0)).unwrap();
    let (start, end) = periods(seq, of).unzip();
    match of {
        Metered::Feature(feature) => {
            let id = format!("feature-{feature}");
            if seq.is_multiple_of(2) {
                json!({"type": "measurement.reported", "timestamp": time(seq, at), "currentUsage": current,
                    "usagePeriodStart": start.map(iso), "usagePeriodEnd": end,
                    "feature": {"id": id, "featureType": "NUMBER", "meterType": "INCREMENTAL"},
                    "customer": {"id": customer}, "resource": resource.as_ref().map(|id| json!({"id": id}))})
            } else {
                json!({"data": {"usageUpdated": {"usage": {"customerId": customer, "resourceId": resource, "featureId": id,
                    "currentUsage": current, "usagePeriodStart": start, "usagePeriodEnd": end},
                    "entitlement": {"usageUpdatedAt": time(seq, at)}}}})
            }
        }
        Metered::Credit(currency) => {
            let id = format!("currency-{currency}");
            if seq.is_multiple_of(2) {
                json!({"type": "CREDIT_BALANCE_UPDATED", "timestamp": time(seq, at), "payload": {"customerId": customer,
                    "resourceId": resource, "currencyId": id, "currentBalance": 40, "totalGranted": 100, "totalConsumed": current}})
            } else {
                json!({"data": {"usageUpdatedV2": {"customerId": customer, "resourceId": resource,
                    "entitlementReference": {"id": id, "type": "CREDIT"},
                    "usage": {"currentUsage": current, "usageUpdatedAt": time(seq, at)}}}})
            }
        }
    }
}

fn purge_event(seq: u64, owners: &[Owner], purged: &[usize], at: u64) -> Value {
    let kind = [
        "SUBSCRIPTIONS_MIGRATED",
        "purge_customer_persistent_cache_requested",
        "customer.deleted",
    ][seq as usize % 3];
    let first = &owners[purged[0]];
    if purged.len() > 1 {
        let list: Vec<Value> = purged
            .iter()
            .map(|&owner| {
                let owner = &owners[owner];
                json!({"customerId": owner.customer, "resourceId": owner.resource})
            })
            .collect();
        json!({"type": kind, "timestamp": time(seq, at), "customers": list})
    } else if first.resource.is_none() && seq.is_multiple_of(2) {
        json!({"type": kind, "timestamp": time(seq, at), "customerIds": [first.customer]})
    } else {
        json!({"type": kind, "timestamp": time(seq, at), "customer": {"id": first.customer}, "resourceId": first.resource})
    }
}

/// Both spellings of a time.
fn time(seq: u64, millis: u64) -> Value {
    if seq.is_multiple_of(4) {
        millis.into()
    } else {
        iso(millis).into()
    }
}

fn iso(millis: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .unwrap()
        .format(&Rfc3339)
        .unwrap()
}

/// A message on its way into the queue.
#[derive(Debug, Clone)]
pub struct Emission {
    pub spec: Arc<Spec>,
    pub duplicate: bool,
}

pub struct Story {
    rng: Rng,
    pub owners: Vec<Owner>,
    /// The owners that messages are drawn from: all but the canaries.
    pub common: usize,
    /// The last time told of each owner.
    last: Vec<u64>,
    pub clock: u64,
    pub seq: u64,
    /// An owner of whom the next messages tell: how many, and from when on their times are.
    burst: Option<(usize, u32, u64)>,
    position: u64,
    /// By position; what is far behind comes in a later round.
    waiting: BinaryHeap<Reverse<(u64, u64, bool)>>,
    specs: std::collections::HashMap<u64, Arc<Spec>>,
}

impl Story {
    pub fn new(seed: u64) -> Story {
        let mut owners = Vec::new();
        for number in 0..CUSTOMERS {
            // Ids are used as they come.
            let customer = match number % 50 {
                7 => format!("cust:{number}"),
                8 => format!("c\u{fc}st {{{number}}}#x"),
                _ => format!("customer-{number}"),
            };
            let resources = match number % 9 {
                0 => 2,
                3 | 6 => 1,
                _ => 0,
            };
            owners.push(Owner {
                customer: customer.clone(),
                resource: None,
            });
            for resource in 1..=resources {
                owners.push(Owner {
                    customer: customer.clone(),
                    resource: Some(format!("site-{resource}")),
                });
            }
        }
        let common = owners.len();
        for canary in 0..CANARIES {
            owners.push(Owner {
                customer: format!("canary-{canary}"),
                resource: None,
            });
        }
        Story {
            rng: Rng::with_seed(seed),
            last: vec![BASE; owners.len()],
            owners,
            common,
            clock: BASE + 1_000_000,
            seq: 1,
            burst: None,
            position: 0,
            waiting: BinaryHeap::new(),
            specs: std::collections::HashMap::new(),
        }
    }

    fn spec(&mut self, what: What) -> Arc<Spec> {
        self.seq += 1;
        Arc::new(Spec {
            seq: self.seq,
            what,
        })
    }

    fn once(spec: Arc<Spec>) -> Emission {
        Emission {
            spec,
            duplicate: false,
        }
    }

    /// Entitlements for everyone.
    pub fn load(&mut self) -> Vec<Emission> {
        (0..self.owners.len())
            .map(|owner| {
                let at = self.tick();
                let set = self.set(owner, at);
                Self::once(self.spec(What::Set(set)))
            })
            .collect()
    }

    /// The next `count` messages in the order in which they are sent: reordered, repeated, late. The last round brings
    /// everything that is still behind.
    pub fn round(
        &mut self,
        count: usize,
        invalid: bool,
        oversize: usize,
        last: bool,
    ) -> Vec<Emission> {
        for number in 0..count {
            let large =
                oversize > 0 && number % (count / oversize + 1) == count / (2 * oversize + 1);
            let spec = self.next(invalid, large);
            let position = self.position + number as u64;
            let delay = match self.rng.u32(0..100) {
                0..60 => 0,
                60..88 => self.rng.u64(0..60),
                88..97 => self.rng.u64(0..1_500),
                _ => self.rng.u64(0..6_000),
            };
            let dead = matches!(spec.what, What::Invalid(_));
            if !dead && self.rng.u32(0..100) < 14 {
                let again = match self.rng.u32(0..4) {
                    0 => 1,
                    1 | 2 => self.rng.u64(0..400),
                    _ => self.rng.u64(0..8_000),
                };
                self.waiting
                    .push(Reverse((position + delay + again, spec.seq, true)));
            }
            let delay = if dead { 0 } else { delay };
            self.waiting
                .push(Reverse((position + delay, spec.seq, false)));
            self.specs.insert(spec.seq, spec);
        }
        self.position += count as u64;
        let mut emissions = Vec::new();
        while let Some(Reverse((position, seq, duplicate))) = self.waiting.peek().copied() {
            if position >= self.position && !last {
                break;
            }
            self.waiting.pop();
            emissions.push(Emission {
                spec: self.specs[&seq].clone(),
                duplicate,
            });
        }
        emissions
    }

    fn next(&mut self, invalid: bool, large: bool) -> Arc<Spec> {
        let (owner, at) = self.owner_and_time();
        let what = match self.rng.u32(0..1000) {
            _ if large => {
                let mut set = self.set(owner, at);
                // About 470 bytes each, one in three near the limit of 1 MiB.
                set.bulk = if self.rng.u32(0..3) == 0 {
                    2_000
                } else {
                    self.rng.usize(200..1_200)
                };
                What::Set(set)
            }
            0..370 => What::Set(self.set(owner, at)),
            370..780 => What::Usage {
                owner,
                of: Metered::Feature(self.rng.u8(0..METERED)),
                at,
            },
            780..880 => What::Usage {
                owner,
                of: Metered::Credit(self.rng.u8(0..CREDITS)),
                at,
            },
            880..930 => What::Purge {
                owners: vec![owner],
                at,
            },
            930..950 => {
                let mut owners: Vec<usize> =
                    (0..self.rng.usize(2..6)).map(|_| self.owner()).collect();
                owners.push(owner);
                owners.sort_unstable();
                owners.dedup();
                What::Purge { owners, at }
            }
            950..970 => What::Package,
            970..992 => What::Unknown,
            _ if invalid => What::Invalid(self.rng.u8(0..4)),
            _ => What::Unknown,
        };
        self.spec(what)
    }

    /// Now and then several messages in a row tell of one owner, in no order of their times: they meet in one batch.
    fn owner_and_time(&mut self) -> (usize, u64) {
        if self.burst.is_none() && self.rng.u32(0..100) < 4 {
            let owner = self.rng.usize(0..self.common);
            self.burst = Some((owner, self.rng.u32(3..8), self.clock));
        }
        match self.burst.take() {
            Some((owner, left, since)) => {
                if left > 1 {
                    self.burst = Some((owner, left - 1, since));
                }
                let at = since + self.rng.u64(0..8) * STEP;
                self.tick();
                self.last[owner] = self.last[owner].max(at);
                (owner, at)
            }
            None => {
                let owner = self.owner();
                (owner, self.time(owner))
            }
        }
    }

    /// A few are busy, so that their messages meet in one batch and in several workers.
    fn owner(&mut self) -> usize {
        match self.rng.u32(0..100) {
            0..15 => self.rng.usize(0..8),
            15..50 => self.rng.usize(0..150),
            _ => self.rng.usize(0..self.common),
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += STEP;
        self.clock
    }

    /// Mostly now; often equal to the last one of this owner, sometimes older.
    fn time(&mut self, owner: usize) -> u64 {
        let now = self.tick();
        let at = match self.rng.u32(0..100) {
            0..12 => self.last[owner],
            12..18 => self.last[owner].saturating_sub(self.rng.u64(1..200)),
            18..24 => now - self.rng.u64(0..20_000),
            _ => now,
        };
        self.last[owner] = self.last[owner].max(at);
        at
    }

    fn set(&mut self, owner: usize, at: u64) -> Set {
        let count = match self.rng.u32(0..20) {
            0 => 0,
            _ => self.rng.usize(1..=usize::from(METERED)),
        };
        let mut ids: Vec<u8> = (0..METERED).collect();
        self.rng.shuffle(&mut ids);
        let metered = ids[..count]
            .iter()
            .map(|&id| {
                let usage_at = match self.rng.u32(0..10) {
                    0..5 => None,
                    5..8 => Some(at - self.rng.u64(0..300)),
                    _ => Some(at + self.rng.u64(0..150)),
                };
                (id, usage_at)
            })
            .collect();
        Set {
            owner,
            at,
            metered,
            denied: self.rng.u32(0..4) == 0,
            bulk: 0,
        }
    }

    pub fn canary(&mut self, number: u64) -> Emission {
        let owner = self.common + (number as usize % CANARIES);
        let at = self.tick();
        let set = Set {
            owner,
            at,
            metered: vec![(0, None)],
            denied: false,
            bulk: 0,
        };
        Self::once(self.spec(What::Set(set)))
    }

    /// The last word on everyone, newer than all before: entitlements with all metered features.
    pub fn settle(&mut self) -> Vec<Emission> {
        self.clock += 10_000_000;
        (0..self.owners.len())
            .map(|owner| {
                let at = self.tick();
                let set = Set {
                    owner,
                    at,
                    metered: (0..METERED).map(|id| (id, None)).collect(),
                    denied: owner.is_multiple_of(2),
                    bulk: 0,
                };
                Self::once(self.spec(What::Set(set)))
            })
            .collect()
    }

    /// And then the usages that `wanted` names, and one feature of every third.
    pub fn settle_usages(&mut self, wanted: &[(usize, Metered)]) -> Vec<Emission> {
        self.clock += 10_000_000;
        let mut all: Vec<(usize, Metered)> = wanted.to_vec();
        let some = (0..self.common).step_by(3);
        all.extend(some.map(|owner| (owner, Metered::Feature((owner % 6) as u8))));
        all.into_iter()
            .map(|(owner, of)| {
                let at = self.tick();
                Self::once(self.spec(What::Usage { owner, of, at }))
            })
            .collect()
    }

    /// A set as an SDK process has it from the API, with times of its own for every usage.
    pub fn refetched(rng: &mut Rng, owner: usize, at: u64) -> Set {
        let metered = (0..METERED)
            .filter_map(|id| {
                let older = rng.u64(0..50) * u64::from(id % 2);
                (rng.u32(0..4) > 0).then_some((id, Some(at - older)))
            })
            .collect();
        Set {
            owner,
            at,
            metered,
            denied: false,
            bulk: 0,
        }
    }
}
