//! Converts an event to its [`StateChange`].

use std::collections::HashSet;

use super::entitlement::{Entry, newest, resource_of_entitlements, usage};
use super::ids::{entity, filled, first_filled, last_id, missing, object_id, optional_last_id};
use super::kind::Kind;
use super::size::Size;
use super::terms::Number;
use super::time::Time;
use super::wire::{Event, Named, Party, Text};
use super::{Change, Entity, Invalid, Metered, Millis, StateChange, TimeSource, Usage};

/// The maximum time that an event may be ahead of its message; later times are replaced.
const MAX_AHEAD_MILLIS: Millis = 5 * 60 * 1000;

/// A time, and its source.
type Timed = (Millis, TimeSource);

/// The times around an event, for state without a time of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// The innermost `timestamp`.
    pub timestamp: Option<Result<Millis, Invalid>>,
    /// The innermost `time` or `Timestamp` of an envelope.
    pub envelope: Option<Millis>,
    /// When the message was sent to the queue.
    pub sent: Option<Millis>,
}

impl Times {
    fn of_event(&self) -> Result<Timed, Invalid> {
        if let Some(timestamp) = self.timestamp.clone().transpose()?
            && timestamp != 0
        {
            return Ok((timestamp, TimeSource::Event));
        }
        if let Some(time) = self.envelope.filter(|&time| time != 0) {
            return Ok((time, TimeSource::Envelope));
        }
        // The write rule treats 0 as unknown; SQS always provides the time of sending.
        Ok((self.sent.unwrap_or(0), TimeSource::Sent))
    }

    /// Returns the first known time of `own`, else that of the event.
    fn first(&self, own: Option<(&Time<'_>, &str, TimeSource)>) -> Result<Timed, Invalid> {
        if let Some((time, field, source)) = own
            && let Some(at) = Time::known(Some(time), field)?
        {
            return Ok((at, source));
        }
        self.of_event()
    }

    fn is_ahead(&self, at: Millis) -> bool {
        self.sent
            .is_some_and(|sent| at > sent.saturating_add(MAX_AHEAD_MILLIS))
    }
}

/// Returns the change of an event of this kind. State cannot be newer than its message: a time ahead of
/// the message is replaced by the time of sending.
pub(super) fn of<'a, P>(
    kind: Kind,
    event: Event<'a, P>,
    times: &Times,
) -> Result<Change<'a>, Invalid> {
    let (mut state, (at, source)) = match kind {
        Kind::EntitlementsUpdated => set_customer(event, times),
        Kind::UsageUpdated => update_usage(event, times),
        Kind::CreditBalanceUpdated => update_credit(event, times),
        Kind::Purge => purge(event, times),
        Kind::PackagePublished | Kind::Other => Err(Invalid::new("the kind has no effect")),
    }?;
    let mut size = Size::default();
    size.add(&state);
    size.check()?;
    let sent = times.sent.unwrap_or(0);
    let mut ahead = 0;
    let mut limit = |time: &mut Millis| {
        if times.is_ahead(*time) {
            *time = sent;
            ahead += 1;
        }
    };
    if let StateChange::SetCustomer {
        entitlements,
        credits,
        ..
    } = &mut state
    {
        let of_entitlements = entitlements
            .iter_mut()
            .filter_map(|it| it.usage_at.as_mut());
        let of_credits = credits.iter_mut().filter_map(|it| it.usage_at.as_mut());
        of_entitlements.chain(of_credits).for_each(&mut limit);
    }
    let mut limited = at;
    limit(&mut limited);
    if limited != at {
        state.set_at(limited);
    }
    Ok(Change {
        state,
        time: match limited == at {
            true => source,
            false => TimeSource::Limited,
        },
        ahead,
        path: None,
    })
}

fn set_customer<'a, P>(
    event: Event<'a, P>,
    times: &Times,
) -> Result<(StateChange<'a>, Timed), Invalid> {
    let listed = event
        .entitlements_v2
        .filter(|list| !list.is_empty() || event.entitlements.is_none())
        .or(event.entitlements)
        .ok_or_else(|| Invalid::new("entitlements are missing"))?;
    let named = [event.resource_id.clone(), object_id(event.resource)];
    let is_named = named.iter().any(|it| matches!(it, Some(None)));
    let resource = match first_filled(named.into_iter().flatten().flatten()) {
        Some(resource) => Some(resource),
        // In the event itself, null means the customer.
        None if is_named => None,
        None => resource_of_entitlements(&listed)?,
    };
    let owner = entity(
        [event.customer_id, event.customer.and_then(Named::id)],
        resource,
    )?;
    let own = event.entitlements_updated_at.as_ref();
    let own = own
        .map(|time| Time::known(Some(time), "entitlementsUpdatedAt"))
        .transpose()?
        .flatten();
    let (at, source) = match (own, newest(&listed)) {
        (Some(at), _) => (at, TimeSource::EntitlementsUpdatedAt),
        (None, Some(at)) => (at, TimeSource::NewestEntitlement),
        (None, None) => times.of_event()?,
    };
    let mut entitlements = Vec::with_capacity(listed.len());
    let mut credits = Vec::new();
    for (index, listed) in listed.into_iter().enumerate() {
        match listed.entry {
            Ok(Entry::Feature(entitlement)) => entitlements.push(entitlement),
            Ok(Entry::Credit(credit)) => credits.push(credit),
            Err(reason) => return Err(Invalid::new(format!("entitlements[{index}]: {reason}"))),
        }
    }
    let change = StateChange::SetCustomer {
        owner,
        entitlements,
        credits,
        access_denied_reason: filled(event.access_denied_reason),
        at,
    };
    Ok((change, (at, source)))
}

fn update_usage<'a, P>(
    event: Event<'a, P>,
    times: &Times,
) -> Result<(StateChange<'a>, Timed), Invalid> {
    let nested = event.usage.unwrap_or_default();
    let resources = [
        event.resource_id.flatten(),
        object_id(event.resource).flatten(),
        nested.resource_id,
    ];
    let customers = [
        event.customer_id,
        event.customer.and_then(Named::id),
        nested.customer_id,
    ];
    let owner = entity(customers, first_filled(resources.into_iter().flatten()))?;
    let currencies = [event.currency_id, event.currency.and_then(Named::id)];
    let features = [
        event.feature_id,
        nested.feature_id,
        event.feature.and_then(Named::id),
    ];
    let of = match event.entitlement_reference {
        Some(reference) => {
            let id = last_id([reference.ref_id, reference.id], "entitlementReference.id")?;
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
        None => match optional_last_id(features, "feature id")? {
            Some(feature) => Metered::Feature(feature),
            None => match optional_last_id(currencies, "currencyId")? {
                Some(currency) => Metered::Credit(currency),
                None => return Err(missing("feature id")),
            },
        },
    };
    let updated = event
        .usage_updated_at
        .or(nested.usage_updated_at)
        .or_else(|| event.entitlement.and_then(|it| it.usage_updated_at));
    let current = event.current_usage.or(nested.current_usage);
    let usage = usage(
        current.ok_or_else(|| Invalid::new("currentUsage is missing"))?,
        event.usage_period_start.or(nested.usage_period_start),
        event.usage_period_end.or(nested.usage_period_end),
        event.next_reset_date.or(nested.next_reset_date),
    )?;
    usage_change(owner, of, usage, updated.as_ref(), times)
}

fn update_credit<'a, P>(
    event: Event<'a, P>,
    times: &Times,
) -> Result<(StateChange<'a>, Timed), Invalid> {
    let resources = [
        event.resource_id.flatten(),
        object_id(event.resource).flatten(),
    ];
    let consumed: Number<'a> = event
        .total_consumed
        .ok_or_else(|| Invalid::new("totalConsumed is missing"))?;
    let customers = [event.customer_id, event.customer.and_then(Named::id)];
    let owner = entity(customers, first_filled(resources.into_iter().flatten()))?;
    let currencies = [event.currency_id, event.currency.and_then(Named::id)];
    let of = Metered::Credit(last_id(currencies, "currencyId")?);
    let usage = Usage {
        current: consumed,
        period_start: None,
        period_end: None,
    };
    usage_change(owner, of, usage, event.usage_updated_at.as_ref(), times)
}

fn usage_change<'a>(
    owner: Entity<'a>,
    of: Metered<'a>,
    usage: Usage<'a>,
    updated: Option<&Time<'_>>,
    times: &Times,
) -> Result<(StateChange<'a>, Timed), Invalid> {
    let own = updated.map(|time| (time, "usageUpdatedAt", TimeSource::UsageUpdatedAt));
    let (at, source) = times.first(own)?;
    let change = StateChange::UpdateUsage {
        owner,
        of,
        usage,
        at,
    };
    Ok((change, (at, source)))
}

fn purge<'a, P>(event: Event<'a, P>, times: &Times) -> Result<(StateChange<'a>, Timed), Invalid> {
    let mut owners = Vec::new();
    let customers = [event.customer_id, event.customer.and_then(Named::id)];
    if customers.iter().any(Option::is_some) {
        let resources = [
            event.resource_id.flatten(),
            object_id(event.resource).flatten(),
        ];
        owners.push(entity(
            customers,
            first_filled(resources.into_iter().flatten()),
        )?);
    }
    let lists = [
        ("customers", event.customers),
        ("customerIds", event.customer_ids),
    ];
    for (field, list) in lists {
        for (index, party) in list.into_iter().flatten().enumerate() {
            let Party { customer, resource } = party;
            let owner = entity(customer, first_filled(resource.into_iter().flatten()));
            let named = |reason| Invalid::new(format!("{field}[{index}]: {reason}"));
            owners.push(owner.map_err(named)?);
        }
    }
    let mut seen = HashSet::with_capacity(owners.len());
    owners.retain(|owner| seen.insert(owner.clone()));
    if owners.is_empty() {
        return Err(Invalid::new(
            "the event names no customer: expected customerId, customer.id, customers or customerIds",
        ));
    }
    let (at, source) = times.of_event()?;
    Ok((StateChange::Purge { owners, at }, (at, source)))
}
