//! The fields of the public event shapes, as serde reads them.
//!
//! One struct serves the webhook, the GraphQL and the old spellings: they share most names, and no
//! name means two things.

mod read;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::entitlement::Listed;
use super::terms::{FeatureType, MeterType, Number};
use super::time::Time;
pub use read::{Id, Named, Nested, Object, Party};
use read::{list, object, present};

/// A string that borrows where it can; `Option<Cow<str>>` alone would copy.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// An event's own fields, of all kinds and shapes together. `P` is what its `payload` is read as.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "P: Deserialize<'de>"))]
pub struct Event<'a, P = &'a RawValue> {
    #[serde(borrow)]
    pub customer_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub customer: Option<Named<'a>>,
    /// Present and null differs from absent: only an absent one lets the entitlements name it.
    #[serde(borrow, default, deserialize_with = "present")]
    pub resource_id: Option<Option<Id<'a>>>,
    #[serde(borrow, default, deserialize_with = "present")]
    pub resource: Option<Option<Named<'a>>>,
    #[serde(borrow, default, deserialize_with = "list")]
    pub customers: Option<Vec<Party<'a>>>,
    #[serde(borrow, default, deserialize_with = "list")]
    pub customer_ids: Option<Vec<Party<'a>>>,

    #[serde(borrow, default, deserialize_with = "list")]
    pub entitlements: Option<Vec<Listed<'a>>>,
    #[serde(borrow)]
    pub access_denied_reason: Option<Text<'a>>,
    #[serde(borrow)]
    pub entitlements_updated_at: Option<Time<'a>>,

    #[serde(borrow)]
    pub feature_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub feature: Option<Named<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub entitlement_reference: Option<Reference<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub usage: Option<WireUsage<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub entitlement: Option<UsageTime<'a>>,
    #[serde(borrow)]
    pub current_usage: Option<Number<'a>>,
    #[serde(borrow)]
    pub usage_period_start: Option<Time<'a>>,
    #[serde(borrow)]
    pub usage_period_end: Option<Time<'a>>,
    #[serde(borrow)]
    pub next_reset_date: Option<Time<'a>>,
    #[serde(borrow)]
    pub usage_updated_at: Option<Time<'a>>,

    #[serde(borrow)]
    pub currency_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub currency: Option<Named<'a>>,
    #[serde(borrow)]
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
    /// Of EventBridge and CloudEvents.
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
    #[serde(borrow, rename = "type")]
    pub kind: Option<Text<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireUsage<'a> {
    #[serde(borrow)]
    pub customer_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub resource_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub feature_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub current_usage: Option<Number<'a>>,
    #[serde(borrow)]
    pub usage_period_start: Option<Time<'a>>,
    #[serde(borrow)]
    pub usage_period_end: Option<Time<'a>>,
    #[serde(borrow)]
    pub next_reset_date: Option<Time<'a>>,
    #[serde(borrow)]
    pub usage_updated_at: Option<Time<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UsageTime<'a> {
    #[serde(borrow)]
    pub usage_updated_at: Option<Time<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireEntitlement<'a> {
    #[serde(borrow, rename = "__typename")]
    pub type_name: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    pub kind: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "object")]
    pub feature: Option<WireFeature<'a>>,
    #[serde(borrow)]
    pub currency: Option<Named<'a>>,
    #[serde(borrow)]
    pub currency_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub resource_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub usage_limit: Option<Number<'a>>,
    pub has_unlimited_usage: Option<bool>,
    pub has_soft_limit: Option<bool>,
    #[serde(borrow)]
    pub access_denied_reason: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "list")]
    pub enum_values: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub valid_until: Option<Time<'a>>,
    #[serde(borrow, deserialize_with = "object")]
    pub credit_rate: Option<WireCreditRate<'a>>,
    #[serde(borrow)]
    pub reset_period: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "object")]
    pub reset_period_configuration: Option<WireResetConfiguration<'a>>,
    #[serde(borrow)]
    pub current_usage: Option<Number<'a>>,
    #[serde(borrow)]
    pub usage_period_anchor: Option<Time<'a>>,
    #[serde(borrow)]
    pub usage_period_start: Option<Time<'a>>,
    #[serde(borrow)]
    pub usage_period_end: Option<Time<'a>>,
    #[serde(borrow)]
    pub next_reset_date: Option<Time<'a>>,
    #[serde(borrow)]
    pub entitlement_updated_at: Option<Time<'a>>,
    #[serde(borrow)]
    pub usage_updated_at: Option<Time<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireFeature<'a> {
    #[serde(borrow)]
    pub id: Option<Id<'a>>,
    #[serde(borrow)]
    pub ref_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub feature_id: Option<Id<'a>>,
    #[serde(borrow)]
    pub feature_type: Option<FeatureType<'a>>,
    #[serde(borrow)]
    pub meter_type: Option<MeterType<'a>>,
    /// Webhooks: singular. Absent in GraphQL.
    #[serde(borrow)]
    pub unit: Option<Text<'a>>,
    /// Webhooks: plural.
    #[serde(borrow)]
    pub units: Option<Text<'a>>,
    #[serde(borrow)]
    pub units_plural: Option<Text<'a>>,
    #[serde(borrow)]
    pub feature_units: Option<Text<'a>>,
    #[serde(borrow)]
    pub feature_units_plural: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireCreditRate<'a> {
    #[serde(borrow)]
    pub amount: Number<'a>,
    #[serde(borrow)]
    pub currency_id: Id<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireResetConfiguration<'a> {
    #[serde(borrow, rename = "__typename")]
    pub type_name: Option<Text<'a>>,
    #[serde(borrow)]
    pub according_to: Option<Text<'a>>,
    #[serde(borrow)]
    pub monthly_according_to: Option<Text<'a>>,
    #[serde(borrow)]
    pub weekly_according_to: Option<Text<'a>>,
    #[serde(borrow)]
    pub yearly_according_to: Option<Text<'a>>,
}
