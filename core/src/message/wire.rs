//! Defines the fields of the public event shapes for serde.
//!
//! One struct serves the webhook, the GraphQL and the old spellings: they share most names, and no
//! name has two meanings. A body in snake case shares some of these names, so each field is read
//! in both cases: a name that is not read would leave a default value.

mod entitlement;
mod named;
mod read;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::entitlement::ParsedEntitlement;
use super::terms::{FeatureType, MeterType, Number};
use super::time::Time;
pub use entitlement::{WireEntitlement, WireFeature, WireResetConfiguration};
pub use named::Named;
use named::{CURRENCY, CUSTOMER, FEATURE, RESOURCE};
pub use read::{Id, Nested, Object, Party};
use read::{list, object, present};

/// A string that borrows where it can; `Option<Cow<str>>` alone would copy.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// The fields of an event, of all kinds and shapes. `P` is the type of its `payload`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "P: Deserialize<'de>"))]
pub struct Event<'a, P = &'a RawValue> {
    #[serde(borrow)]
    #[serde(
        alias = "customer_id",
        alias = "customer-id",
        alias = "customerRefId",
        alias = "customer_ref_id",
        alias = "customer-ref-id"
    )]
    pub customer_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub customer: Option<Named<'a, CUSTOMER>>,
    /// Null differs from absent: only if it is absent may the entitlements name it.
    #[serde(borrow, default, deserialize_with = "present")]
    #[serde(
        alias = "resource_id",
        alias = "resource-id",
        alias = "resourceRefId",
        alias = "resource_ref_id",
        alias = "resource-ref-id"
    )]
    pub resource_id: Option<Option<Id<'a>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub resource: Option<Option<Named<'a, RESOURCE>>>,
    #[serde(borrow, default, deserialize_with = "list")]
    pub customers: Option<Vec<Party<'a>>>,
    #[serde(borrow, default, deserialize_with = "list")]
    #[serde(alias = "customer_ids", alias = "customer-ids")]
    pub customer_ids: Option<Vec<Party<'a>>>,

    #[serde(borrow, default, deserialize_with = "list")]
    pub entitlements: Option<Vec<ParsedEntitlement<'a>>>,
    /// The entitlements including those of credits, in addition to `entitlements` or instead of it.
    #[serde(borrow, default, rename = "entitlementsV2", deserialize_with = "list")]
    #[serde(alias = "entitlements_v2", alias = "entitlements-v2")]
    pub entitlements_v2: Option<Vec<ParsedEntitlement<'a>>>,
    #[serde(borrow)]
    #[serde(alias = "access_denied_reason", alias = "access-denied-reason")]
    pub access_denied_reason: Option<Text<'a>>,
    #[serde(borrow)]
    #[serde(alias = "entitlements_updated_at", alias = "entitlements-updated-at")]
    pub entitlements_updated_at: Option<Time<'a>>,

    #[serde(borrow)]
    #[serde(
        alias = "feature_id",
        alias = "feature-id",
        alias = "featureRefId",
        alias = "feature_ref_id",
        alias = "feature-ref-id"
    )]
    pub feature_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub feature: Option<Named<'a, FEATURE>>,
    #[serde(borrow, default, deserialize_with = "object")]
    #[serde(alias = "entitlement_reference", alias = "entitlement-reference")]
    pub entitlement_reference: Option<Reference<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub usage: Option<WireUsage<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub entitlement: Option<UsageTime<'a>>,
    #[serde(borrow)]
    #[serde(alias = "current_usage", alias = "current-usage")]
    pub current_usage: Option<Number<'a>>,
    #[serde(borrow)]
    #[serde(alias = "usage_period_start", alias = "usage-period-start")]
    pub usage_period_start: Option<Time<'a>>,
    #[serde(borrow)]
    #[serde(alias = "usage_period_end", alias = "usage-period-end")]
    pub usage_period_end: Option<Time<'a>>,
    #[serde(borrow)]
    #[serde(alias = "next_reset_date", alias = "next-reset-date")]
    pub next_reset_date: Option<Time<'a>>,
    #[serde(borrow)]
    #[serde(alias = "usage_updated_at", alias = "usage-updated-at")]
    pub usage_updated_at: Option<Time<'a>>,

    #[serde(borrow)]
    #[serde(
        alias = "currency_id",
        alias = "currency-id",
        alias = "currencyRefId",
        alias = "currency_ref_id",
        alias = "currency-ref-id"
    )]
    pub currency_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub currency: Option<Named<'a, CURRENCY>>,
    #[serde(borrow)]
    #[serde(alias = "total_consumed", alias = "total-consumed")]
    pub total_consumed: Option<Number<'a>>,

    /// The wrapping, beside the event's own fields, so that one pass reads both.
    #[serde(borrow, rename = "type")]
    pub kind: Option<&'a RawValue>,
    #[serde(borrow)]
    pub event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    pub event_name: Option<&'a RawValue>,
    #[serde(borrow, rename = "detail-type")]
    pub detail_type: Option<&'a RawValue>,
    #[serde(borrow)]
    pub detail: Option<&'a RawValue>,
    #[serde(borrow)]
    pub data: Option<&'a RawValue>,
    pub payload: Option<P>,
    #[serde(borrow, rename = "Type")]
    pub sns_type: Option<&'a RawValue>,
    #[serde(borrow, rename = "Message")]
    pub sns_message: Option<&'a RawValue>,
    #[serde(borrow, rename = "MessageAttributes")]
    pub sns_attributes: Option<&'a RawValue>,
    #[serde(borrow, rename = "Timestamp")]
    pub sns_timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    pub timestamp: Option<&'a RawValue>,
    /// The time of EventBridge and CloudEvents.
    #[serde(borrow)]
    pub time: Option<&'a RawValue>,
    #[serde(borrow)]
    pub specversion: Option<&'a RawValue>,
    #[serde(borrow)]
    pub trace_id: Option<&'a RawValue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reference<'a> {
    #[serde(borrow)]
    pub id: Option<Id<'a>>,
    #[serde(borrow, rename = "refId")]
    #[serde(alias = "ref_id", alias = "ref-id")]
    pub ref_id: Option<Id<'a>>,
    #[serde(borrow, rename = "type")]
    pub kind: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireUsage<'a> {
    #[serde(borrow)]
    #[serde(
        alias = "customer_id",
        alias = "customer-id",
        alias = "customerRefId",
        alias = "customer_ref_id",
        alias = "customer-ref-id"
    )]
    pub customer_id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(
        alias = "resource_id",
        alias = "resource-id",
        alias = "resourceRefId",
        alias = "resource_ref_id",
        alias = "resource-ref-id"
    )]
    pub resource_id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(
        alias = "feature_id",
        alias = "feature-id",
        alias = "featureRefId",
        alias = "feature_ref_id",
        alias = "feature-ref-id"
    )]
    pub feature_id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(alias = "current_usage", alias = "current-usage")]
    pub current_usage: Option<Number<'a>>,
    #[serde(borrow)]
    #[serde(alias = "usage_period_start", alias = "usage-period-start")]
    pub usage_period_start: Option<Time<'a>>,
    #[serde(borrow)]
    #[serde(alias = "usage_period_end", alias = "usage-period-end")]
    pub usage_period_end: Option<Time<'a>>,
    #[serde(borrow)]
    #[serde(alias = "next_reset_date", alias = "next-reset-date")]
    pub next_reset_date: Option<Time<'a>>,
    #[serde(borrow)]
    #[serde(alias = "usage_updated_at", alias = "usage-updated-at")]
    pub usage_updated_at: Option<Time<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageTime<'a> {
    #[serde(borrow)]
    #[serde(alias = "usage_updated_at", alias = "usage-updated-at")]
    pub usage_updated_at: Option<Time<'a>>,
}
