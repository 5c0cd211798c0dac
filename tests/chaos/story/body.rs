//! How the body of a message spells what it says: in every public shape, and in wrappings that are known or not.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::spec::{Event, Metered, Set, Spec, Used};
use super::value::{self, Feature};
use super::{BASE, Owner, PERIOD};

impl Spec {
    /// The body of a message that is sent at `sent`.
    pub fn body(&self, owners: &[Owner], sent: u64) -> String {
        let seq = self.seq;
        let marker = self.marker();
        let written = |at: u64| self.ahead.map_or(at, |ahead| sent + ahead);
        let event = match &self.what {
            Event::Set(set) => match self.ahead {
                Some(ahead) => set
                    .told_at(sent + ahead, seq)
                    .event(seq, &owners[set.owner]),
                None => set.event(seq, &owners[set.owner]),
            },
            Event::Usage { owner, of, at } => usage_event(seq, &owners[*owner], *of, written(*at)),
            Event::Purge { owners: purged, at } => purge_event(seq, owners, purged, written(*at)),
            Event::Package => {
                json!({"type": "package.published", "timestamp": iso(BASE), "package": {"id": "p"}})
            }
            Event::Unknown { owner } => self.unknown(&owners[*owner]),
            Event::Invalid(0) => {
                return format!(r#"{{"type":"entitlements.updated","messageId":"{marker}","cust"#);
            }
            Event::Invalid(1) => {
                json!({"type": "measurement.reported", "timestamp": iso(BASE), "currentUsage": 3, "feature": {"id": "feature-0"}})
            }
            Event::Invalid(2) => {
                json!({"type": "ENTITLEMENTS_UPDATED", "entitlementsUpdatedAt": iso(BASE * 2), "customer": {"id": owners[0].customer},
                "entitlements": [graphql(&Feature::metered(0, "1".into(), Used::Now)), {"feature": {"id": "feature-9"}, "usageLimit": "lots"}]})
            }
            Event::Invalid(_) => {
                json!({"type": "CUSTOMER_DELETED", "timestamp": iso(BASE * 2), "customer": {"name": owners[0].customer}})
            }
        };
        match &self.what {
            // A wrapping might make it larger than SQS takes.
            Event::Set(set) if set.bulk > 0 => event.to_string(),
            _ if self.has_unknown_beside() => beside_unknown(event, &marker),
            _ => wrap(seq, event, &marker),
        }
    }

    /// What an event of such a kind happens to carry is not applied, and a purge is not inferred.
    fn unknown(&self, owner: &Owner) -> Value {
        let (customer, late) = (&owner.customer, iso(BASE * 2));
        if self.is_unrecognised() {
            let kind = ["customer.merged", "CUSTOMERS_ARCHIVED"][(self.seq / 2) as usize % 2];
            json!({"type": kind, "timestamp": late, "customer": {"id": customer}, "customerIds": [customer],
                "resourceId": owner.resource})
        } else {
            let kind =
                ["coupon.updated", "PLAN_UPDATED", "subscription.created"][self.seq as usize % 3];
            json!({"type": kind, "timestamp": late, "customer": {"id": customer}, "feature": {"id": "feature-0"},
                "currentUsage": 1, "entitlements": []})
        }
    }
}

/// In a list with an event of an unknown kind.
fn beside_unknown(mut event: Value, marker: &str) -> String {
    event["messageId"] = marker.into();
    let unknown = json!({"type": "customer.renamed", "id": 1, "links": [{"type": "invoice"}]});
    json!([event, unknown]).to_string()
}

/// In every wrapping that is known, and in some that are not.
fn wrap(seq: u64, mut event: Value, marker: &str) -> String {
    event["messageId"] = marker.into();
    let kind = event["type"].as_str().map(str::to_owned);
    let meta = json!({"id": marker, "producer": {"region": "eu-1"}});
    match (seq % 13, kind) {
        (0, _) => json!({"Type": "Notification", "MessageId": "sns", "Message": event.to_string()}),
        (1, Some(kind)) => json!({"version": "0", "detail-type": kind, "detail": event}),
        (2, _) => json!({"meta": meta, "content": event.to_string()}),
        (3, _) => json!([event]),
        (4, _) => json!({"meta": meta, "blob": BASE64_STANDARD.encode(event.to_string())}),
        (5, _) => json!({"Records": [{"eventSource": "bus", "body": event.to_string()}]}),
        (6, _) => json!({"envelope": {"id": marker, "inner": {"document": event}}}),
        _ => event,
    }
    .to_string()
}

impl Set {
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

fn webhook(feature: &Feature) -> Value {
    let metered = feature.is_metered();
    json!({"feature": {"id": feature.id, "name": "X", "featureType": feature.feature_type,
            "meterType": feature.meter_type.map(str::to_uppercase), "unit": metered.then_some("call"),
            "units": metered.then_some("calls"), "status": "NEW"},
        "usageLimit": feature.limit, "hasUnlimitedUsage": false, "hasSoftLimit": metered, "currentUsage": feature.current(),
        "usagePeriodAnchor": null, "usagePeriodStart": metered.then(|| iso(PERIOD.0)),
        "usagePeriodEnd": metered.then_some(PERIOD.1), "resetPeriod": metered.then_some("MONTH"),
        "resetPeriodConfiguration": metered.then(|| json!({"accordingTo": "SubscriptionStart"})),
        "enumValues": (!feature.enum_values.is_empty()).then_some(&feature.enum_values), "usageUpdatedAt": feature.usage_at().map(iso)})
}

fn graphql(feature: &Feature) -> Value {
    let metered = feature.is_metered();
    json!({"__typename": "Entitlement", "isGranted": true, "accessDeniedReason": null, "usageLimit": feature.limit,
        "hasUnlimitedUsage": false, "hasSoftLimit": metered, "currentUsage": feature.current(),
        "enumValues": (!feature.enum_values.is_empty()).then_some(&feature.enum_values),
        "usageUpdatedAt": feature.usage_at(), "usagePeriodStart": metered.then_some(PERIOD.0),
        "usagePeriodEnd": metered.then(|| iso(PERIOD.1)), "resetPeriod": metered.then_some("MONTH"),
        "resetPeriodConfiguration": metered.then(|| json!({"__typename": "MonthlyResetPeriodConfig", "monthlyAccordingTo": "SubscriptionStart"})),
        "feature": {"__typename": "EntitlementFeature", "refId": feature.id, "featureType": feature.feature_type,
            "meterType": feature.meter_type, "featureUnits": metered.then_some("call"), "featureUnitsPlural": metered.then_some("calls")}})
}

fn usage_event(seq: u64, owner: &Owner, of: Metered, at: u64) -> Value {
    let (customer, resource) = (&owner.customer, &owner.resource);
    let current: Value = serde_json::from_str(&value::current(seq, 0)).unwrap();
    let (start, end) = value::periods(seq, of).unzip();
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
