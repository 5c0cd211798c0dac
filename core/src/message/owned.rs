//! Copies changes, so that they outlive the text they were read from.

use std::borrow::Cow;

use super::terms::{FeatureType, MeterType};
use super::{
    Change, Credit, CreditRate, Entitlement, Entity, Feature, Metered, ResetConfiguration,
    StateChange, Usage,
};

fn owned(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

impl Change<'_> {
    pub(super) fn into_owned(self) -> Change<'static> {
        let state = match self.state {
            StateChange::SetCustomer {
                owner,
                entitlements,
                credits,
                access_denied_reason,
                at,
            } => StateChange::SetCustomer {
                owner: owner.into_owned(),
                entitlements: entitlements
                    .into_iter()
                    .map(Entitlement::into_owned)
                    .collect(),
                credits: credits.into_iter().map(Credit::into_owned).collect(),
                access_denied_reason: access_denied_reason.map(owned),
                at,
            },
            StateChange::UpdateUsage {
                owner,
                of,
                usage,
                at,
            } => StateChange::UpdateUsage {
                owner: owner.into_owned(),
                of: match of {
                    Metered::Feature(id) => Metered::Feature(owned(id)),
                    Metered::Credit(id) => Metered::Credit(owned(id)),
                },
                usage: usage.into_owned(),
                at,
            },
            StateChange::Purge { owners, at } => StateChange::Purge {
                owners: owners.into_iter().map(Entity::into_owned).collect(),
                at,
            },
        };
        Change {
            state,
            time: self.time,
            ahead: self.ahead,
            path: self.path,
        }
    }
}

impl Entity<'_> {
    fn into_owned(self) -> Entity<'static> {
        Entity {
            customer: owned(self.customer),
            resource: self.resource.map(owned),
        }
    }
}

impl Usage<'_> {
    fn into_owned(self) -> Usage<'static> {
        Usage {
            current: self.current.into_owned(),
            period_start: self.period_start,
            period_end: self.period_end,
        }
    }
}

impl Credit<'_> {
    fn into_owned(self) -> Credit<'static> {
        Credit {
            currency: self.currency.map(owned),
            usage: self.usage.map(Usage::into_owned),
            usage_at: self.usage_at,
        }
    }
}

impl Feature<'_> {
    fn into_owned(self) -> Feature<'static> {
        Feature {
            id: owned(self.id),
            feature_type: self.feature_type.map(FeatureType::into_owned),
            meter_type: self.meter_type.map(MeterType::into_owned),
            units: owned(self.units),
            units_plural: owned(self.units_plural),
        }
    }
}

impl Entitlement<'_> {
    fn into_owned(self) -> Entitlement<'static> {
        Entitlement {
            feature: self.feature.map(Feature::into_owned),
            resource: self.resource.map(owned),
            usage_limit: self.usage_limit.map(|it| it.into_owned()),
            unlimited: self.unlimited,
            soft_limit: self.soft_limit,
            access_denied_reason: self.access_denied_reason.map(owned),
            enum_values: self.enum_values.into_iter().map(owned).collect(),
            valid_until: self.valid_until.map(|it| it.into_owned()),
            credit_rate: self.credit_rate.map(|rate| CreditRate {
                amount: rate.amount.into_owned(),
                currency: owned(rate.currency),
            }),
            reset_period: self.reset_period.map(owned),
            reset_configuration: self.reset_configuration.map(|it| ResetConfiguration {
                type_name: owned(it.type_name),
                according_to: it.according_to.map(|(field, value)| (field, owned(value))),
            }),
            usage: self.usage.into_owned(),
            period_anchor: self.period_anchor,
            usage_at: self.usage_at,
            usage_is_known: self.usage_is_known,
        }
    }
}
