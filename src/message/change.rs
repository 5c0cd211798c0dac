//! From an event to the [`StateChange`] it asks for.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::entitlement::{newest, resource_of_entitlements, usage};
use super::envelope::{Opened, Parsed};
use super::kind::Kind;
use super::time::Time;
use super::wire::{Event, Named, Party, Text};
use super::{Entity, Invalid, Metered, Millis, StateChange, TimeSource, Usage};
use crate::keys;

/// A time of a change, and where it was found.
type Timed = (Millis, TimeSource);

impl Opened<'_> {
    /// What this message asks for. `sent` is when it was sent, for events without a time.
    pub fn change(&self, sent: Option<Millis>) -> Result<StateChange<'_>, Invalid> {
        self.timed_change(sent).map(|(change, _)| change)
    }

    /// The same, with where its time was found; none where nothing is to be done.
    pub fn timed_change(
        &self,
        sent: Option<Millis>,
    ) -> Result<(StateChange<'_>, Option<TimeSource>), Invalid> {
        if matches!(self.kind, Kind::PackagePublished | Kind::Other) {
            return Ok((StateChange::Nothing, None));
        }
        match self.parsed.take() {
            Some(Parsed::Outer(event)) => self.change_by(*event, sent),
            Some(Parsed::Inner(event)) => self.change_by(*event, sent),
            None => {
                let event = serde_json::from_str(self.text()).map_err(|_| self.explain())?;
                self.change_by::<&RawValue>(event, sent)
            }
        }
    }

    fn change_by<'a, P>(
        &'a self,
        event: Event<'a, P>,
        sent: Option<Millis>,
    ) -> Result<(StateChange<'a>, Option<TimeSource>), Invalid> {
        let event_time = || match &self.timestamp {
            Some(timestamp) => timestamp.clone().map(|at| (at, TimeSource::Event)),
            // 0 is "unknown" to the write rule; SQS always tells when a message was sent.
            None => Ok((sent.unwrap_or(0), TimeSource::Sent)),
        };
        let (change, source) = match self.kind {
            Kind::EntitlementsUpdated => set_customer(event, event_time),
            Kind::UsageUpdated => update_usage(event, event_time),
            Kind::CreditBalanceUpdated => update_credit(event, event_time),
            Kind::Purge => purge(event, event_time),
            Kind::PackagePublished | Kind::Other => return Ok((StateChange::Nothing, None)),
        }?;
        Ok((change, Some(source)))
    }

    /// Parses once more, to say where it went wrong. Never quotes a value.
    fn explain(&self) -> Invalid {
        let mut json = serde_json::Deserializer::from_str(self.text());
        let Err(error) = serde_path_to_error::deserialize::<_, Event<'_>>(&mut json) else {
            return Invalid::new("an event is followed by something else");
        };
        let path = error.path().to_string();
        let mut reason = error.into_inner().to_string();
        if reason.starts_with("invalid ") {
            // serde quotes the offending value: `invalid type: string "x", expected a number`.
            let what = reason
                .split(['"', '`'])
                .next()
                .unwrap_or_default()
                .trim_end();
            let rest = reason.rfind(", expected").map_or("", |at| &reason[at..]);
            reason = format!("{}{rest}", what.trim_end_matches(','));
        }
        Invalid::new(format!("{path}: {reason}"))
    }
}

fn set_customer<'a, P>(
    event: Event<'a, P>,
    event_time: impl Fn() -> Result<Timed, Invalid>,
) -> Result<(StateChange<'a>, TimeSource), Invalid> {
    let listed = event
        .entitlements
        .ok_or_else(|| Invalid::new("entitlements are missing"))?;
    let event_resource = first_present(event.resource_id, event.resource.map(flatten_id));
    let resource = match event_resource {
        Some(resource) => resource,
        None => resource_of_entitlements(&listed)?,
    };
    let owner = entity(event.customer_id, event.customer, resource)?;
    let (at, source) = match &event.entitlements_updated_at {
        Some(time) => (
            time.required("entitlementsUpdatedAt")?,
            TimeSource::EntitlementsUpdatedAt,
        ),
        None => match newest(&listed) {
            Some(at) => (at, TimeSource::NewestEntitlement),
            None => event_time()?,
        },
    };
    let entitlements = listed
        .into_iter()
        .enumerate()
        .map(|(index, listed)| {
            let entitlement = listed.entitlement;
            entitlement.map_err(|reason| Invalid::new(format!("entitlements[{index}]: {reason}")))
        })
        .collect::<Result<_, _>>()?;
    let change = StateChange::SetCustomer {
        owner,
        entitlements,
        credits: Vec::new(),
        access_denied_reason: filled(event.access_denied_reason),
        at,
    };
    Ok((change, source))
}

fn update_usage<'a, P>(
    event: Event<'a, P>,
    event_time: impl Fn() -> Result<Timed, Invalid>,
) -> Result<(StateChange<'a>, TimeSource), Invalid> {
    let nested = event.usage.unwrap_or_default();
    let resource = first_present(event.resource_id, event.resource.map(flatten_id))
        .or(nested.resource_id)
        .flatten();
    let owner = entity(
        event.customer_id.or(nested.customer_id),
        event.customer,
        resource,
    )?;
    let of = match event.entitlement_reference {
        Some(reference) => {
            let id = last_id(reference.id, "entitlementReference.id")?;
            match reference.kind {
                Some(Text(kind)) if kind.eq_ignore_ascii_case("CREDIT") => Metered::Credit(id),
                Some(Text(kind)) if !kind.eq_ignore_ascii_case("FEATURE") => {
                    return Err(Invalid::new(
                        "entitlementReference.type is neither FEATURE nor CREDIT",
                    ));
                }
                _ => Metered::Feature(id),
            }
        }
        None => {
            let id = event.feature_id.or(nested.feature_id);
            Metered::Feature(last_id(
                id.or_else(|| event.feature.and_then(Named::id)),
                "feature id",
            )?)
        }
    };
    let updated = event
        .usage_updated_at
        .or(nested.usage_updated_at)
        .or_else(|| {
            event
                .entitlement
                .and_then(|entitlement| entitlement.usage_updated_at)
        });
    let current = event.current_usage.or(nested.current_usage);
    let usage = usage(
        current.ok_or_else(|| Invalid::new("currentUsage is missing"))?,
        event.usage_period_start.or(nested.usage_period_start),
        event.usage_period_end.or(nested.usage_period_end),
        event.next_reset_date.or(nested.next_reset_date),
    )?;
    let (at, source) = usage_time(updated.as_ref(), event_time)?;
    let change = StateChange::UpdateUsage {
        owner,
        of,
        usage,
        at,
    };
    Ok((change, source))
}

fn update_credit<'a, P>(
    event: Event<'a, P>,
    event_time: impl Fn() -> Result<Timed, Invalid>,
) -> Result<(StateChange<'a>, TimeSource), Invalid> {
    let resource = first_present(event.resource_id, event.resource.map(flatten_id)).flatten();
    let consumed = event
        .total_consumed
        .ok_or_else(|| Invalid::new("totalConsumed is missing"))?;
    let owner = entity(event.customer_id, event.customer, resource)?;
    let of = Metered::Credit(last_id(event.currency_id, "currencyId")?);
    let (at, source) = usage_time(event.usage_updated_at.as_ref(), event_time)?;
    let usage = Usage {
        current: consumed,
        period_start: None,
        period_end: None,
    };
    let change = StateChange::UpdateUsage {
        owner,
        of,
        usage,
        at,
    };
    Ok((change, source))
}

fn usage_time(
    updated: Option<&Time<'_>>,
    event_time: impl Fn() -> Result<Timed, Invalid>,
) -> Result<Timed, Invalid> {
    match updated {
        Some(time) => Ok((time.required("usageUpdatedAt")?, TimeSource::UsageUpdatedAt)),
        None => event_time(),
    }
}

fn purge<'a, P>(
    event: Event<'a, P>,
    event_time: impl Fn() -> Result<Timed, Invalid>,
) -> Result<(StateChange<'a>, TimeSource), Invalid> {
    let mut owners = Vec::new();
    if event.customer_id.is_some() || event.customer.is_some() {
        let resource = first_present(event.resource_id, event.resource.map(flatten_id)).flatten();
        owners.push(entity(event.customer_id, event.customer, resource)?);
    }
    let lists = [
        ("customers", event.customers),
        ("customerIds", event.customer_ids),
    ];
    for (field, list) in lists {
        for (index, party) in list.into_iter().flatten().enumerate() {
            let owner = match party {
                Party::Id(id) => entity(Some(Text(id)), None, None),
                Party::Object(party) => {
                    let resource = party
                        .resource_id
                        .or_else(|| party.resource.and_then(Named::id));
                    entity(party.customer_id.or(party.id), None, resource)
                }
            };
            let named = |reason| Invalid::new(format!("{field}[{index}]: {reason}"));
            owners.push(owner.map_err(named)?);
        }
    }
    let mut seen = std::collections::HashSet::new();
    owners.retain(|owner| seen.insert(owner.clone()));
    if owners.is_empty() {
        return Err(Invalid::new(
            "no customer is named: expected customerId, customer.id, customers or customerIds",
        ));
    }
    let (at, source) = event_time()?;
    Ok((StateChange::Purge { owners, at }, source))
}

fn entity<'a>(
    customer_id: Option<Text<'a>>,
    customer: Option<Named<'a>>,
    resource: Option<Text<'a>>,
) -> Result<Entity<'a>, Invalid> {
    let customer = filled(customer_id)
        .or_else(|| filled(customer.and_then(Named::id)))
        .ok_or_else(|| Invalid::new("customer id is missing or empty"))?;
    let resource = filled(resource);
    for (what, id) in [
        ("customer", Some(&customer)),
        ("resource", resource.as_ref()),
    ] {
        if let Some(part) = id.and_then(|id| keys::collision_of_owner(id)) {
            return Err(Invalid::new(format!(
                "{what} id holds \"{part}\", so its keys would be those of another"
            )));
        }
    }
    Ok(Entity { customer, resource })
}

/// An id that comes last in its key.
pub fn last_id<'a>(id: Option<Text<'a>>, what: &str) -> Result<Cow<'a, str>, Invalid> {
    let id = filled(id).ok_or_else(|| Invalid::new(format!("{what} is missing or empty")))?;
    match keys::collision_of_suffix(&id) {
        Some(part) => Err(Invalid::new(format!(
            "{what} ends in \"{part}\", so its key would be that of another"
        ))),
        None => Ok(id),
    }
}

/// An empty string counts as none.
pub fn filled(text: Option<Text<'_>>) -> Option<Cow<'_, str>> {
    text.map(|Text(text)| text).filter(|text| !text.is_empty())
}

fn flatten_id<'a>(named: Option<Named<'a>>) -> Option<Text<'a>> {
    named.and_then(Named::id)
}

fn first_present<'a>(
    id: Option<Option<Text<'a>>>,
    object: Option<Option<Text<'a>>>,
) -> Option<Option<Text<'a>>> {
    match (id, object) {
        (Some(Some(id)), _) => Some(Some(id)),
        (id, object) => object.or(id),
    }
}
