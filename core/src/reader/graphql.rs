//! Prints entitlements in the GraphQL shape of the Edge API.
//!
//! Fields that the layout of Redis does not keep are filled: the display name of a feature is its id, others are null.

use serde::Serialize;

use super::time::Iso;
use super::{Access, Datum, Entry, Fact, NO_CUSTOMER, NO_FEATURE, Request, State};

/// Why a list is incomplete.
#[derive(Debug, PartialEq, Eq)]
pub struct Incomplete;

/// Returns the list of a customer, or why it is incomplete.
pub type Listing = Result<String, Incomplete>;

#[derive(Serialize)]
struct Data<T> {
    data: T,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Answer<'a> {
    Entitlements(Vec<Printed<'a>>),
    Entitlement(Box<Printed<'a>>),
    /// Of a feature for which the customer has no entitlement.
    #[serde(rename = "entitlement")]
    Absent(Absent),
    EntitlementsState(Whole<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a> {
    #[serde(rename = "__typename")]
    typename: &'static str,
    access_denied_reason: Option<&'a str>,
    entitlements: Vec<Printed<'a>>,
    #[serde(rename = "entitlementsV2")]
    entitlements_v2: Vec<Printed<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Absent {
    #[serde(rename = "__typename")]
    typename: &'static str,
    access_denied_reason: &'static str,
    entitlement_updated_at: Iso,
    feature: (),
    has_unlimited_usage: bool,
    is_granted: bool,
}

/// An entitlement. What is skipped is a field of the first version only.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    #[serde(rename = "__typename")]
    typename: &'static str,
    access_denied_reason: Datum<'a>,
    credit_rate: Datum<'a>,
    current_usage: Datum<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    customer_id: Option<()>,
    entitlement_updated_at: Iso,
    enum_values: Datum<'a>,
    feature: Option<Feature<'a>>,
    has_soft_limit: bool,
    has_unlimited_usage: bool,
    is_granted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_reset_date: Option<Iso>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_usage: Option<()>,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested_values: Option<()>,
    reset_period: Datum<'a>,
    reset_period_configuration: Datum<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_id: Option<Datum<'a>>,
    usage_limit: Datum<'a>,
    usage_period_anchor: Iso,
    usage_period_end: Iso,
    usage_period_start: Iso,
    usage_updated_at: Iso,
    valid_until: Until<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Until<'a> {
    /// As it is stored.
    Stored(Datum<'a>),
    Time(Iso),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Feature<'a> {
    #[serde(rename = "__typename")]
    typename: &'static str,
    description: Datum<'a>,
    display_name: Datum<'a>,
    feature_type: Datum<'a>,
    feature_units: Datum<'a>,
    feature_units_plural: Datum<'a>,
    meter_type: Datum<'a>,
    ref_id: &'a str,
    unit_transformation: Datum<'a>,
}

/// Returns the answer of `entitlements.json`.
pub fn entitlements(state: &State, now: f64) -> Listing {
    let entries = entries(state, now)?;
    let list = entries.iter().map(|entry| first_version(state, entry));
    Ok(json(Answer::Entitlements(list.collect())))
}

/// Returns the answer of `entitlements-state.json`.
pub fn entitlements_state(state: &State, now: f64) -> Listing {
    let entries = entries(state, now)?;
    let first = entries.iter().map(|entry| first_version(state, entry));
    let second = entries
        .iter()
        .map(|entry| second_version(state, entry, now));
    Ok(json(Answer::EntitlementsState(Whole {
        typename: "EntitlementsState",
        access_denied_reason: state.denied(),
        entitlements: first.collect(),
        entitlements_v2: second.collect(),
    })))
}

/// Returns the answer of `entitlements.json` for one feature.
pub fn single(state: &State, feature: &str, request: &Request, now: f64) -> Listing {
    let Some(entry) = state.find(feature, now) else {
        let reason = match state.is_empty() {
            true => NO_CUSTOMER,
            false => NO_FEATURE,
        };
        return Ok(json(Answer::Absent(Absent {
            typename: "Entitlement",
            access_denied_reason: reason,
            entitlement_updated_at: updated_at(state),
            feature: (),
            has_unlimited_usage: false,
            is_granted: false,
        })));
    };
    if !entry.is_decided() {
        return Err(Incomplete);
    }
    let mut printed = first_version(state, &entry);
    let access = entry.decide(request);
    printed.is_granted = access == Access::Granted;
    printed.access_denied_reason = match access {
        Access::Denied(reason) => Datum::Text(reason),
        Access::Granted | Access::Unreadable(_) => Datum::Null,
    };
    // The reader of this answer does not check the end of the period, as an SDK would.
    if entry.entitlement.usage().is_some_and(|usage| usage.is_over) {
        printed.current_usage = Datum::Int(0);
    }
    Ok(json(Answer::Entitlement(Box::new(printed))))
}

fn json(answer: Answer<'_>) -> String {
    // Its values are strings and numbers, and no map has a key that is none.
    serde_json::to_string(&Data { data: answer }).unwrap_or_default()
}

/// Returns all entitlements, if each can be decided.
fn entries(state: &State, now: f64) -> Result<Vec<Entry<'_>>, Incomplete> {
    let entries = state.entries(now);
    entries
        .map(|entry| entry.is_decided().then_some(entry).ok_or(Incomplete))
        .collect()
}

fn updated_at(state: &State) -> Iso {
    Iso(state.updated_at().map(|at| at as f64))
}

fn first_version<'a>(state: &State, entry: &'a Entry<'_>) -> Printed<'a> {
    let it = &entry.entitlement;
    let printed = common(state, entry);
    Printed {
        typename: "Entitlement",
        customer_id: Some(()),
        next_reset_date: Some(printed.usage_period_end),
        requested_usage: Some(()),
        requested_values: Some(()),
        resource_id: Some(it.fact(Fact::ResourceId).borrowed()),
        valid_until: Until::Stored(match entry.is_expired {
            // Its reason denies it; with this time, a reader would ask again for each question about it.
            true => Datum::Null,
            false => it.fact(Fact::ValidUntil).borrowed(),
        }),
        ..printed
    }
}

fn second_version<'a>(state: &State, entry: &'a Entry<'_>, now: f64) -> Printed<'a> {
    let until = entry.entitlement.valid_until();
    Printed {
        valid_until: Until::Time(Iso(until.filter(|until| *until > now))),
        ..common(state, entry)
    }
}

/// Returns the fields of both versions of an entitlement.
fn common<'a>(state: &State, entry: &'a Entry<'_>) -> Printed<'a> {
    let it = &entry.entitlement;
    let stored = |fact| it.fact(fact).borrowed();
    let time = |fact| Iso(it.fact(fact).as_f64());
    Printed {
        typename: "FeatureEntitlement",
        access_denied_reason: match entry.is_expired {
            // A reader would ask again, get this answer again, and grant an expired entitlement.
            true => Datum::Text(NO_FEATURE.into()),
            false => stored(Fact::AccessDeniedReason),
        },
        credit_rate: stored(Fact::CreditRate),
        // The stored value: an SDK checks the end of the period itself.
        current_usage: stored(Fact::CurrentUsage),
        customer_id: None,
        entitlement_updated_at: updated_at(state),
        enum_values: stored(Fact::EnumValues),
        feature: it.has_feature().then(|| feature(entry)),
        has_soft_limit: it.has_soft_limit(),
        has_unlimited_usage: entry.is_unlimited(),
        is_granted: entry.decide(&Request::default()) == Access::Granted,
        next_reset_date: None,
        requested_usage: None,
        requested_values: None,
        reset_period: stored(Fact::ResetPeriod),
        reset_period_configuration: stored(Fact::ResetPeriodConfiguration),
        resource_id: None,
        usage_limit: stored(Fact::UsageLimit),
        usage_period_anchor: time(Fact::PeriodAnchor),
        usage_period_end: time(Fact::PeriodEnd),
        usage_period_start: time(Fact::PeriodStart),
        usage_updated_at: time(Fact::UsageAt),
        valid_until: Until::Time(Iso(None)),
    }
}

fn feature<'a>(entry: &'a Entry<'_>) -> Feature<'a> {
    let it = &entry.entitlement;
    let stored = |fact| it.fact(fact).borrowed();
    Feature {
        typename: "EntitlementFeature",
        description: stored(Fact::Description),
        display_name: match it.fact(Fact::DisplayName) {
            Datum::Null => Datum::Text(it.feature.as_ref().into()),
            name => name.borrowed(),
        },
        feature_type: stored(Fact::FeatureType),
        feature_units: stored(Fact::Units),
        feature_units_plural: stored(Fact::UnitsPlural),
        meter_type: stored(Fact::MeterType),
        ref_id: &it.feature,
        unit_transformation: stored(Fact::UnitTransformation),
    }
}
