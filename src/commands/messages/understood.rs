//! Explains a message: its change, and how the worker found it.

use std::collections::HashMap;

use entitlement_sync::clock::now_ms;
use entitlement_sync::message::{
    self, Attributes, Invalid, Kind, Metered, Millis, NamedBy, Reading, StateChange, TimeSource,
    Wrapping,
};
use entitlement_sync::plan::{Item, Planner, Step};

/// A message that can be applied, or that needs no change.
#[derive(Debug)]
pub struct Understood {
    pub kind: Kind,
    /// The kind, as written in the message; empty if it has none.
    pub name: String,
    pub named_by: NamedBy,
    pub wrappings: Vec<Wrapping>,
    /// The places in the body where the changes were found, for a message of unknown shape.
    pub paths: Vec<String>,
    /// The changes in words.
    pub asks: String,
    /// The time of the first change; `None` if no change is needed.
    pub time: Option<(Millis, TimeSource)>,
    pub steps: Vec<Step>,
    /// For each step, its change.
    change_of: Vec<usize>,
    /// The time of each change, and where it was found.
    times: Vec<(Millis, TimeSource)>,
    /// The customer, where it is one.
    pub customer: Option<String>,
    /// The unknown kind of an event in which no change was found; the worker keeps a copy of the message.
    pub unrecognised: Option<String>,
    /// Keys of items with a time of their own.
    dated: HashMap<String, bool>,
}

impl Understood {
    pub fn named_by(&self) -> String {
        match self.named_by {
            NamedBy::Field(field) => format!("the field {field}"),
            NamedBy::Attribute => "a message attribute".into(),
            NamedBy::GraphQl => "the one field under data".into(),
            NamedBy::Key => "the name of the object that holds it".into(),
            NamedBy::Structure => "its structure".into(),
        }
    }

    pub fn wrapping(&self) -> Vec<&'static str> {
        self.wrappings.iter().map(|it| it.as_str()).collect()
    }

    /// Returns the source of the time of an item of a step.
    pub fn source_of(&self, step: usize, item: &Item) -> &'static str {
        if self.dated.get(&item.key) == Some(&true) {
            return TimeSource::UsageUpdatedAt.as_str();
        }
        self.source_of_step(step)
    }

    /// Returns the source of the time of a step.
    pub fn source_of_step(&self, step: usize) -> &'static str {
        let change = self.change_of.get(step).copied().unwrap_or_default();
        self.times
            .get(change)
            .map_or("", |(_, source)| source.as_str())
    }

    /// Returns the outcome of a message that needs no change.
    pub fn nothing(&self) -> &'static str {
        match (&self.unrecognised, self.times.is_empty()) {
            // All its state is older than the lifetime of keys.
            (_, false) => "expired",
            (Some(_), true) => "unrecognised",
            (None, true) => "ignored",
        }
    }
}

/// Reads a message as the worker does.
pub fn understand(
    body: &str,
    attributes: &Attributes,
    planner: &Planner,
) -> Result<Understood, (Option<Kind>, Invalid)> {
    let reading = message::read(body, attributes).map_err(|unreadable| {
        let kind = Some(unreadable.kind).filter(|kind| *kind != Kind::Other);
        (kind, unreadable.reason)
    })?;
    let mut dated = HashMap::new();
    let (mut steps, mut change_of) = (Vec::new(), Vec::new());
    let now = now_ms();
    for (index, change) in reading.changes.iter().enumerate() {
        if let StateChange::SetCustomer {
            owner,
            entitlements,
            ..
        } = &change.state
        {
            for entitlement in entitlements {
                if let Some(feature) = &entitlement.feature {
                    let key = planner.keys.feature_usage(owner.as_owner(), &feature.id);
                    dated.insert(key, entitlement.usage_at.is_some());
                }
            }
        }
        steps.extend(planner.steps(&change.state, attributes.sent, now));
        change_of.resize(steps.len(), index);
    }
    let mut times = reading.changes.iter().map(|it| (it.state.at(), it.time));
    Ok(Understood {
        kind: reading.kind,
        asks: asks(&reading, planner),
        time: times.next(),
        times: reading
            .changes
            .iter()
            .map(|it| (it.state.at(), it.time))
            .collect(),
        paths: reading
            .changes
            .iter()
            .filter_map(|it| it.path.clone())
            .collect(),
        steps,
        change_of,
        customer: reading.changes.first().and_then(|it| customer(&it.state)),
        unrecognised: reading.unrecognised,
        dated,
        named_by: reading.named_by,
        wrappings: reading.wrappings,
        name: reading.name,
    })
}

fn customer(change: &StateChange<'_>) -> Option<String> {
    let owner = match change {
        StateChange::SetCustomer { owner, .. } | StateChange::UpdateUsage { owner, .. } => owner,
        StateChange::Purge { owners, .. } => owners.first()?,
    };
    Some(owner.customer.to_string())
}

fn nothing(reading: &Reading<'_>) -> &'static str {
    match reading.notice {
        Some(notice) => notice.as_str(),
        None if reading.unrecognised.is_some() => {
            "nothing: its kind is unknown and no change was found in it; the worker keeps the first 10 of a kind in the dead-letter stream and acknowledges it"
        }
        None if reading.kind == Kind::Other => {
            "nothing: its kind does not concern Redis; the worker acknowledges it"
        }
        None => "nothing in Redis; the worker acknowledges it",
    }
}

/// Describes what a message asks for, in words.
fn asks(reading: &Reading<'_>, planner: &Planner) -> String {
    if reading.changes.is_empty() {
        return nothing(reading).to_owned();
    }
    let changes = reading.changes.iter();
    let changes: Vec<String> = changes.map(|it| summary(&it.state, planner)).collect();
    let kept = match &reading.unrecognised {
        Some(name) => format!(
            "; the worker also keeps the message in the dead-letter stream, if it is one of the first 10 with an event of the unknown kind {name}, in which no change was found"
        ),
        None => String::new(),
    };
    format!("{}{kept}", changes.join("; then "))
}

/// Describes a change in words.
fn summary(change: &StateChange<'_>, planner: &Planner) -> String {
    let named = |owner: &message::Entity<'_>| match &owner.resource {
        Some(resource) => format!("customer {}, resource {resource}", owner.customer),
        None => format!("customer {}", owner.customer),
    };
    match change {
        StateChange::SetCustomer {
            owner,
            entitlements,
            credits,
            access_denied_reason,
            ..
        } => {
            if planner.rules.invalidate {
                return format!(
                    "remove {}, so that readers load it again (CACHE_UPDATE_POLICY=INVALIDATE)",
                    named(owner)
                );
            }
            if !credits.is_empty() && !planner.rules.omit_credits {
                return format!(
                    "remove {}, so that readers load it again: {} of its entitlements are credits, which the layout cannot hold",
                    named(owner),
                    credits.len()
                );
            }
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
            format!("remove {owners}; state newer than the purge stays")
        }
    }
}
