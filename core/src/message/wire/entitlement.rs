//! Defines the fields of an entitlement in a list.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::named::{CURRENCY, Named};
use super::read::{Id, list, object};
use super::{FeatureType, MeterType, Number, Text, Time};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireEntitlement<'a> {
    #[serde(borrow, rename = "__typename")]
    pub type_name: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    pub kind: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "object")]
    pub feature: Option<WireFeature<'a>>,
    /// The id of the feature, where the feature is not an object.
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
    #[serde(alias = "feature_type", alias = "feature-type")]
    pub feature_type: Option<FeatureType<'a>>,
    #[serde(borrow)]
    #[serde(alias = "meter_type", alias = "meter-type")]
    pub meter_type: Option<MeterType<'a>>,
    /// The entitlement within an entry that is wrapped or has the layout of the cache.
    #[serde(alias = "entitlement", alias = "node")]
    #[serde(alias = "calculated_entitlement", alias = "calculated-entitlement")]
    pub calculated_entitlement: Option<IgnoredAny>,
    #[serde(borrow)]
    pub currency: Option<Named<'a, CURRENCY>>,
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
    #[serde(
        alias = "resource_id",
        alias = "resource-id",
        alias = "resourceRefId",
        alias = "resource_ref_id",
        alias = "resource-ref-id"
    )]
    pub resource_id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(alias = "usage_limit", alias = "usage-limit")]
    pub usage_limit: Option<Number<'a>>,
    #[serde(alias = "has_unlimited_usage", alias = "has-unlimited-usage")]
    pub has_unlimited_usage: Option<bool>,
    #[serde(alias = "has_soft_limit", alias = "has-soft-limit")]
    pub has_soft_limit: Option<bool>,
    #[serde(borrow)]
    #[serde(alias = "access_denied_reason", alias = "access-denied-reason")]
    pub access_denied_reason: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "list")]
    #[serde(alias = "enum_values", alias = "enum-values")]
    pub enum_values: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    #[serde(alias = "valid_until", alias = "valid-until")]
    pub valid_until: Option<Time<'a>>,
    #[serde(borrow, deserialize_with = "object")]
    #[serde(alias = "credit_rate", alias = "credit-rate")]
    pub credit_rate: Option<WireCreditRate<'a>>,
    #[serde(borrow)]
    #[serde(alias = "reset_period", alias = "reset-period")]
    pub reset_period: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "object")]
    #[serde(
        alias = "reset_period_configuration",
        alias = "reset-period-configuration"
    )]
    pub reset_period_configuration: Option<WireResetConfiguration<'a>>,
    #[serde(borrow)]
    #[serde(alias = "current_usage", alias = "current-usage")]
    pub current_usage: Option<Number<'a>>,
    #[serde(borrow)]
    #[serde(alias = "usage_period_anchor", alias = "usage-period-anchor")]
    pub usage_period_anchor: Option<Time<'a>>,
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
    #[serde(alias = "entitlement_updated_at", alias = "entitlement-updated-at")]
    pub entitlement_updated_at: Option<Time<'a>>,
    #[serde(borrow)]
    #[serde(alias = "usage_updated_at", alias = "usage-updated-at")]
    pub usage_updated_at: Option<Time<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireFeature<'a> {
    #[serde(borrow)]
    pub id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(alias = "ref_id", alias = "ref-id")]
    pub ref_id: Option<Id<'a>>,
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
    #[serde(alias = "feature_type", alias = "feature-type")]
    pub feature_type: Option<FeatureType<'a>>,
    #[serde(borrow)]
    #[serde(alias = "meter_type", alias = "meter-type")]
    pub meter_type: Option<MeterType<'a>>,
    /// Webhooks: singular. Absent in GraphQL.
    #[serde(borrow)]
    pub unit: Option<Text<'a>>,
    /// Webhooks: plural.
    #[serde(borrow)]
    pub units: Option<Text<'a>>,
    #[serde(borrow)]
    #[serde(alias = "units_plural", alias = "units-plural")]
    pub units_plural: Option<Text<'a>>,
    #[serde(borrow)]
    #[serde(alias = "feature_units", alias = "feature-units")]
    pub feature_units: Option<Text<'a>>,
    #[serde(borrow)]
    #[serde(alias = "feature_units_plural", alias = "feature-units-plural")]
    pub feature_units_plural: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WireCreditRate<'a> {
    #[serde(borrow)]
    pub amount: Number<'a>,
    #[serde(borrow)]
    #[serde(
        alias = "currency_id",
        alias = "currency-id",
        alias = "currencyRefId",
        alias = "currency_ref_id",
        alias = "currency-ref-id"
    )]
    pub currency_id: Id<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WireResetConfiguration<'a> {
    #[serde(borrow, rename = "__typename")]
    pub type_name: Option<Text<'a>>,
    #[serde(borrow)]
    #[serde(alias = "according_to", alias = "according-to")]
    pub according_to: Option<Text<'a>>,
    #[serde(borrow)]
    #[serde(alias = "monthly_according_to", alias = "monthly-according-to")]
    pub monthly_according_to: Option<Text<'a>>,
    #[serde(borrow)]
    #[serde(alias = "weekly_according_to", alias = "weekly-according-to")]
    pub weekly_according_to: Option<Text<'a>>,
    #[serde(borrow)]
    #[serde(alias = "yearly_according_to", alias = "yearly-according-to")]
    pub yearly_according_to: Option<Text<'a>>,
}
