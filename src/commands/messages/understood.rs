//! What a message asks for, and how that was found out.

use std::collections::HashMap;

use entitlement_sync::message::{
    self, Attributes, Invalid, Kind, Metered, Millis, NamedBy, StateChange, TimeSource, Wrapping,
};
use entitlement_sync::plan::{Item, Planner, Step};

/// A message that can be applied, or asks for nothing.
#[derive(Debug)]
pub struct Understood {
    pub kind: Kind,
    /// The kind as the message spells it.
    pub name: String,
    pub named_by: NamedBy,
    pub wrappings: Vec<Wrapping>,
    /// The change in words.
    pub asks: String,
    /// Of the change as a whole; none where nothing is to be done.
    pub time: Option<(Millis, TimeSource)>,
    pub steps: Vec<Step>,
    /// The customer, where it is one.
    pub customer: Option<String>,
    /// Keys of items with a time of their own.
    dated: HashMap<String, bool>,
}

impl Understood {
    pub fn named_by(&self) -> String {
        match self.named_by {
            NamedBy::Field(field) => format!("the field {field}"),
            NamedBy::Attribute => "a message attribute".into(),
            NamedBy::GraphQl => "the one field under data".into(),
        }
    }

    pub fn wrapping(&self) -> Vec<&'static str> {
        self.wrappings.iter().map(|it| it.as_str()).collect()
    }

    /// Where the time of an item was found.
    pub fn source_of(&self, item: &Item) -> &'static str {
        if self.dated.get(&item.key) == Some(&true) {
            return TimeSource::UsageUpdatedAt.as_str();
        }
        self.time.map_or("", |(_, source)| source.as_str())
    }
}

/// Reads a message as the worker does.
pub fn understand(
    body: &str,
    attributes: &Attributes,
    planner: &Planner,
) -> Result<Understood, (Option<Kind>, Invalid)> {
    let opened = message::open(body, attributes).map_err(|reason| (None, reason))?;
    let kind = opened.kind;
    let (change, source) = opened
        .timed_change(attributes.sent)
        .map_err(|reason| (Some(kind), reason))?;
    let at = match &change {
        StateChange::SetCustomer { at, .. }
        | StateChange::UpdateUsage { at, .. }
        | StateChange::Purge { at, .. } => *at,
        StateChange::Nothing => 0,
    };
    let mut dated = HashMap::new();
    if let StateChange::SetCustomer {
        owner,
        entitlements,
        ..
    } = &change
    {
        for entitlement in entitlements {
            if let Some(feature) = &entitlement.feature {
                let key = planner.keys.feature_usage(owner.as_owner(), &feature.id);
                dated.insert(key, entitlement.usage_at.is_some());
            }
        }
    }
    Ok(Understood {
        kind,
        asks: summary(&change, kind),
        time: source.map(|source| (at, source)),
        steps: planner.steps(&change, attributes.sent, super::now()),
        customer: customer(&change),
        dated,
        named_by: opened.named_by,
        wrappings: opened.wrappings.clone(),
        name: opened.name.clone(),
    })
}

fn customer(change: &StateChange<'_>) -> Option<String> {
    let owner = match change {
        StateChange::SetCustomer { owner, .. } | StateChange::UpdateUsage { owner, .. } => owner,
        StateChange::Purge { owners, .. } => owners.first()?,
        StateChange::Nothing => return None,
    };
    Some(owner.customer.to_string())
}

/// A change in words.
fn summary(change: &StateChange<'_>, kind: Kind) -> String {
    let named = |owner: &message::Entity<'_>| match &owner.resource {
        Some(resource) => format!("customer {}, resource {resource}", owner.customer),
        None => format!("customer {}", owner.customer),
    };
    match change {
        StateChange::SetCustomer {
            owner,
            entitlements,
            access_denied_reason,
            ..
        } => {
            let metered = entitlements.iter().filter_map(|it| it.feature.as_ref());
            let metered = metered.filter(|feature| feature.is_metered()).count();
            let denied = access_denied_reason.as_ref();
            let denied = denied.map_or_else(String::new, |why| format!("; denied: {why}"));
            format!(
                "set all entitlements of {}: {} of them, {metered} metered{denied}",
                named(owner),
                entitlements.len(),
            )
        }
        StateChange::UpdateUsage {
            owner, of, usage, ..
        } => {
            let of = match of {
                Metered::Feature(feature) => format!("feature {feature}"),
                Metered::Credit(currency) => format!("credit {currency}"),
            };
            let owner = named(owner);
            let usage = usage.current.as_str();
            format!("set the usage of {of} of {owner} to {usage}, if it is cached")
        }
        StateChange::Purge { owners, .. } => {
            let owners: Vec<String> = owners.iter().map(named).collect();
            let owners = owners.join("; ");
            format!("forget {owners}; what is newer than the purge stays")
        }
        StateChange::Nothing if kind == Kind::Other => {
            "nothing: not a kind that concerns Redis; it is acknowledged".into()
        }
        StateChange::Nothing => "nothing in Redis; it is acknowledged".into(),
    }
}
