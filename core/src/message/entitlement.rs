//! Normalizes the entitlements of messages to the form that the SDK stores.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};

use super::ids::{filled, filled_id, last_id, optional_last_id};
use super::terms::Number;
use super::time::Time;
use super::wire::{Id, Named, Object, Text, WireEntitlement, WireFeature, WireResetConfiguration};
use super::{Credit, CreditRate, Entitlement, Feature, Invalid, Millis, ResetConfiguration, Usage};

/// One entitlement of a list. It is normalized right after it is parsed: the parsed form is twice as large, and
/// a list may have dozens.
#[derive(Debug)]
pub struct ParsedEntitlement<'a> {
    pub entry: Result<Entry<'a>, Invalid>,
    updated_at: Option<Time<'a>>,
    /// The resource, which old webhooks name only here.
    resource: Option<Cow<'a, str>>,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all of them are the large one"
)]
pub enum Entry<'a> {
    Feature(Entitlement<'a>),
    Credit(Credit<'a>),
}

impl<'de: 'a, 'a> Deserialize<'de> for ParsedEntitlement<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object(mut wire) = Object::<WireEntitlement<'_>>::deserialize(deserializer)?;
        let resource = filled_id(wire.resource_id.take());
        if wire.feature.is_none()
            && wire
                .feature_id
                .as_ref()
                .is_some_and(|Id(id)| !id.is_empty())
        {
            wire.feature = Some(WireFeature {
                feature_id: wire.feature_id.take(),
                feature_type: wire.feature_type.take(),
                meter_type: wire.meter_type.take(),
                ..WireFeature::default()
            });
        }
        Ok(Self {
            updated_at: wire.entitlement_updated_at.take(),
            entry: match is_credit(&wire) {
                true => credit_of(wire).map(Entry::Credit),
                false => entitlement_of(wire, resource.clone()).map(Entry::Feature),
            },
            resource,
        })
    }
}

fn is_credit(wire: &WireEntitlement<'_>) -> bool {
    let is = |text: &Option<Text<'_>>, name: &str| {
        text.as_ref()
            .is_some_and(|it| it.0.eq_ignore_ascii_case(name))
    };
    let has_currency = wire.currency.is_some() || wire.currency_id.is_some();
    is(&wire.type_name, "CreditEntitlement")
        || is(&wire.kind, "CREDIT")
        || (has_currency && wire.feature.is_none())
}

fn credit_of(wire: WireEntitlement<'_>) -> Result<Credit<'_>, Invalid> {
    let usage_at = Time::known(wire.usage_updated_at.as_ref(), "usageUpdatedAt")?;
    let is_known = wire.current_usage.is_some() || usage_at.is_some();
    let usage = usage(
        wire.current_usage.unwrap_or(Number::ZERO),
        wire.usage_period_start,
        wire.usage_period_end,
        wire.next_reset_date,
    )?;
    let currency = [wire.currency_id, wire.currency.and_then(Named::id)];
    Ok(Credit {
        currency: optional_last_id(currency, "currencyId")?,
        usage: is_known.then_some(usage),
        usage_at,
    })
}

/// Returns the newest known time of the list.
pub fn newest(entitlements: &[ParsedEntitlement<'_>]) -> Option<Millis> {
    entitlements
        .iter()
        .filter_map(|listed| listed.updated_at.as_ref()?.millis())
        .filter(|&millis| millis != 0)
        .max()
}

/// Returns the resource that the entitlements name, if they all name one.
pub fn resource_of_entitlements<'a>(
    entitlements: &[ParsedEntitlement<'a>],
) -> Result<Option<Cow<'a, str>>, Invalid> {
    let mut found: Option<&Cow<'a, str>> = None;
    for resource in entitlements.iter().filter_map(|it| it.resource.as_ref()) {
        if found.is_some_and(|found| found != resource) {
            return Err(Invalid::new("entitlements name more than one resourceId"));
        }
        found = Some(resource);
    }
    Ok(found.cloned())
}

fn entitlement_of<'a>(
    wire: WireEntitlement<'a>,
    resource: Option<Cow<'a, str>>,
) -> Result<Entitlement<'a>, Invalid> {
    if wire.calculated_entitlement.is_some() && wire.feature.is_none() {
        return Err(Invalid::new(
            "the entitlement is in an object of its own, which is not read",
        ));
    }
    let reset_period = filled(wire.reset_period);
    let reset_configuration = wire
        .reset_period_configuration
        .and_then(|configuration| reset_configuration(configuration, reset_period.as_deref()));
    let usage_at = Time::known(wire.usage_updated_at.as_ref(), "usageUpdatedAt")?;
    let usage_is_known = wire.current_usage.is_some() || usage_at.is_some();
    let usage = usage(
        wire.current_usage.unwrap_or(Number::ZERO),
        wire.usage_period_start,
        wire.usage_period_end,
        wire.next_reset_date,
    )?;
    Ok(Entitlement {
        feature: wire.feature.map(feature_of).transpose()?,
        resource,
        usage_limit: wire.usage_limit,
        unlimited: wire.has_unlimited_usage.unwrap_or(false),
        soft_limit: wire.has_soft_limit.unwrap_or(false),
        access_denied_reason: filled(wire.access_denied_reason),
        enum_values: wire
            .enum_values
            .into_iter()
            .flatten()
            .map(|Text(text)| text)
            .collect(),
        valid_until: match wire.valid_until {
            // Readers accept fractions and signs here.
            Some(Time::Number(number)) if number <= 0.0 || (1e11..1e14).contains(&number) => {
                Number::finite(number)
            }
            time => Time::known(time.as_ref(), "validUntil")?.map(Number::from),
        },
        credit_rate: wire.credit_rate.map(|rate| CreditRate {
            amount: rate.amount,
            currency: rate.currency_id.0,
        }),
        reset_period,
        reset_configuration,
        usage,
        period_anchor: Time::known(wire.usage_period_anchor.as_ref(), "usagePeriodAnchor")?,
        usage_at,
        usage_is_known,
    })
}

fn feature_of(wire: WireFeature<'_>) -> Result<Feature<'_>, Invalid> {
    // `units` is the plural in webhooks, which also have `unit`, and the singular elsewhere.
    let (singular, plural) = match wire.unit {
        Some(unit) => (Some(unit), wire.units),
        None if wire.units_plural.is_some() => (wire.units, wire.units_plural),
        None => (wire.feature_units, wire.feature_units_plural.or(wire.units)),
    };
    Ok(Feature {
        id: last_id([wire.ref_id, wire.id, wire.feature_id], "feature id")?,
        feature_type: wire.feature_type.filter(|it| !it.as_str().is_empty()),
        meter_type: wire.meter_type.filter(|it| !it.as_str().is_empty()),
        units: singular.map_or(Cow::Borrowed(""), |Text(text)| text),
        units_plural: plural.map_or(Cow::Borrowed(""), |Text(text)| text),
    })
}

/// Finds the rule of the period: webhooks write `accordingTo`, GraphQL and the cache the field of the period's type.
fn reset_configuration<'a>(
    wire: WireResetConfiguration<'a>,
    period: Option<&str>,
) -> Option<ResetConfiguration<'a>> {
    let rules = [
        ("monthlyAccordingTo", wire.monthly_according_to),
        ("weeklyAccordingTo", wire.weekly_according_to),
        ("yearlyAccordingTo", wire.yearly_according_to),
    ];
    let (field, value) = match rules
        .into_iter()
        .find_map(|(field, value)| Some((field, value?)))
    {
        Some(rules) => rules,
        None => {
            let field = match period.map(str::to_ascii_uppercase).as_deref() {
                Some("MONTH") => "monthlyAccordingTo",
                Some("WEEK") => "weeklyAccordingTo",
                Some("YEAR") => "yearlyAccordingTo",
                _ => "",
            };
            match (wire.according_to, wire.type_name) {
                (Some(value), _) if !field.is_empty() => {
                    return Some(named_configuration(field, value, None));
                }
                (_, Some(Text(type_name))) => {
                    return Some(ResetConfiguration {
                        type_name,
                        according_to: None,
                    });
                }
                _ => return None,
            }
        }
    };
    Some(named_configuration(field, value, wire.type_name))
}

fn named_configuration<'a>(
    field: &'static str,
    Text(value): Text<'a>,
    type_name: Option<Text<'a>>,
) -> ResetConfiguration<'a> {
    ResetConfiguration {
        type_name: match (type_name, field) {
            (Some(Text(name)), _) => name,
            (None, "weeklyAccordingTo") => "WeeklyResetPeriodConfig".into(),
            (None, "yearlyAccordingTo") => "YearlyResetPeriodConfig".into(),
            (None, _) => "MonthlyResetPeriodConfig".into(),
        },
        according_to: Some((field, value)),
    }
}

/// Reads the periods. For readers, the reset date of the webhooks of 2022 is the end of the period.
pub fn usage<'a>(
    current: Number<'a>,
    start: Option<Time<'a>>,
    end: Option<Time<'a>>,
    reset: Option<Time<'a>>,
) -> Result<Usage<'a>, Invalid> {
    let period_end = match Time::known(end.as_ref(), "usagePeriodEnd")? {
        Some(end) => Some(end),
        None => Time::known(reset.as_ref(), "nextResetDate")?,
    };
    Ok(Usage {
        current,
        period_start: Time::known(start.as_ref(), "usagePeriodStart")?,
        period_end,
    })
}
