//! Finds the change in an object, and builds its event with the published names.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::Search;
use super::scope::{Name, Scope};
use super::text::{MAX_UNPACKED_BYTES, push_string, rewrite};
use super::values::{Entries, MAX_OPEN_VALUES, Members};
use super::vocabulary::{is_of_no_customer, spelled};
use crate::message::Invalid;
use crate::message::change::{self, Times};
use crate::message::fields::explain;
use crate::message::kind::{Kind, Meaning, meaning};
use crate::message::wire::{Event, Object};

impl Search<'_> {
    /// The kind with an effect that the innermost object names.
    pub(super) fn named(&self) -> Option<Kind> {
        self.scopes.iter().rev().find_map(|scope| {
            let name = scope.name.as_ref()?;
            match name.meaning {
                Meaning::Effect(kind) => Some(kind),
                _ => None,
            }
        })
    }

    /// Returns whether the value under a name must not be applied, because it is not the current state of a
    /// customer. A purge needs no state.
    pub(super) fn is_beside_the_point(&self, name: &str) -> bool {
        self.named() != Some(Kind::Purge)
            && is_of_no_customer(name)
            && !matches!(meaning(name), Meaning::Effect(_))
    }

    /// Adds the change of this object, if it has one.
    pub(super) fn take(&mut self, members: &Members<'_>) -> bool {
        let name = self
            .scopes
            .iter()
            .rev()
            .find_map(|scope| scope.name.clone());
        let named = self.named();
        let has = |wanted: &str| {
            members
                .0
                .iter()
                .any(|(name, raw)| spelled(name) == Some(wanted) && raw.get() != "null")
        };
        if named == Some(Kind::Purge) {
            let is_purge = ["customerId", "customer", "customers", "customerIds"]
                .into_iter()
                .any(has);
            return is_purge && self.push(Kind::Purge, name, members);
        }
        let around = |part: fn(&Scope) -> &Option<String>| {
            self.scopes.iter().any(|scope| part(scope).is_some())
        };
        let has_customer =
            around(|scope| &scope.customer) || customer_of_entries(members).is_some();
        let of_feature = has("entitlementReference") || around(|scope| &scope.feature);
        let of_currency = around(|scope| &scope.currency);
        let is_list = |wanted: &str| {
            members
                .0
                .iter()
                .any(|(name, raw)| spelled(name) == Some(wanted) && raw.get().starts_with('['))
        };
        let kind = if !has_customer {
            return false;
        } else if is_list("entitlements") || is_list("entitlementsV2") {
            Kind::EntitlementsUpdated
        } else if has("totalConsumed") && of_currency {
            Kind::CreditBalanceUpdated
        } else if has("currentUsage") && (of_feature || of_currency) {
            Kind::UsageUpdated
        } else {
            return false;
        };
        let usage_of_credit = kind == Kind::UsageUpdated && of_currency && !of_feature;
        match named {
            None if self.is_without_effect() => true,
            Some(named)
                if named != kind && !(named == Kind::CreditBalanceUpdated && usage_of_credit) =>
            {
                let reason = format!(
                    "the message is named {} and carries a change of {}",
                    named.as_str(),
                    kind.as_str()
                );
                self.refuse(named, Invalid::new(reason));
                true
            }
            _ => self.push(kind, name, members),
        }
    }

    /// Reads the change as the first pass does, with the data of the objects around it.
    fn push(&mut self, kind: Kind, name: Option<Name>, members: &Members<'_>) -> bool {
        let text = self.event(kind, members);
        let Some(room) = self.room_for_events.checked_sub(text.len()) else {
            let reason = format!(
                "the changes of the message take more than {MAX_UNPACKED_BYTES} bytes; split the message"
            );
            self.refuse(kind, Invalid::new(reason));
            return true;
        };
        self.room_for_events = room;
        let times = Times {
            timestamp: self
                .scopes
                .iter()
                .rev()
                .find_map(|scope| scope.timestamp.clone()),
            envelope: self.scopes.iter().rev().find_map(|scope| scope.envelope),
            sent: self.attributes.sent,
        };
        let event = serde_json::from_str::<Object<Box<Event<'_>>>>(&text);
        let change = match event {
            Ok(Object(event)) => change::of(kind, *event, &times),
            Err(error) => Err(explain(&text, &error)),
        };
        match change {
            Ok(mut change) => {
                self.size.add(&change.state);
                if let Err(reason) = self.size.check() {
                    self.refuse(kind, reason);
                    return true;
                }
                change.path = Some(format!("${}", self.path));
                if self.trace_id.is_none() {
                    let mut scopes = self.scopes.iter().rev();
                    self.trace_id = scopes.find_map(|scope| scope.trace_id.clone());
                }
                self.found.push((kind, name, change.into_owned()));
            }
            Err(reason) => self.refuse(kind, reason),
        }
        true
    }

    /// Builds the event with the published names: its own fields, and missing ones from the objects around it.
    fn event(&self, kind: Kind, members: &Members<'_>) -> String {
        const FIELDS: [&str; 22] = [
            "customerId",
            "customer",
            "customers",
            "customerIds",
            "resourceId",
            "resource",
            "entitlements",
            "entitlementsV2",
            "accessDeniedReason",
            "entitlementsUpdatedAt",
            "featureId",
            "feature",
            "entitlementReference",
            "entitlement",
            "currencyId",
            "currency",
            "currentUsage",
            "usagePeriodStart",
            "usagePeriodEnd",
            "nextResetDate",
            "usageUpdatedAt",
            "totalConsumed",
        ];
        let mut text = String::from("{");
        let mut own: Vec<&str> = Vec::new();
        let mut put = |name: &'static str, raw: &str, own: &mut Vec<&str>| {
            if own.contains(&name) {
                return;
            }
            if !own.is_empty() {
                text.push(',');
            }
            own.push(name);
            push_string(name, &mut text);
            text.push(':');
            rewrite(raw, true, &mut text);
        };
        // If a name occurs in two spellings, the last counts.
        for (name, raw) in members.0.iter().rev() {
            if let Some(name) = spelled(name).filter(|name| FIELDS.contains(name)) {
                put(name, raw.get(), &mut own);
            }
        }
        let is_here = |own: &[&str], names: [&str; 2]| names.iter().any(|it| own.contains(it));
        let quoted = |text: &str| {
            let mut quoted = String::new();
            push_string(text, &mut quoted);
            quoted
        };
        let entry = customer_of_entries(members);
        let place = self
            .scopes
            .iter()
            .rposition(|scope| scope.customer.is_some());
        // A resource belongs to the customer that is named beside it or around it.
        let inner = &self.scopes[place.unwrap_or(0)..];
        let scoped = |part: fn(&Scope) -> &Option<String>, scopes: &[Scope]| {
            scopes.iter().rev().find_map(|scope| part(scope).clone())
        };
        if kind != Kind::Purge {
            let customer = scoped(|it| &it.customer, &self.scopes).or(entry);
            if let Some(id) = customer.filter(|_| !is_here(&own, ["customerId", "customer"])) {
                put("customerId", &quoted(&id), &mut own);
            }
            let resource = scoped(|it| &it.resource, inner);
            if let Some(id) = resource.filter(|_| !is_here(&own, ["resourceId", "resource"])) {
                put("resourceId", &quoted(&id), &mut own);
            }
            let has_reference = is_here(&own, ["featureId", "feature"])
                || is_here(&own, ["entitlementReference", "currencyId"])
                || own.contains(&"currency");
            if !has_reference && kind != Kind::EntitlementsUpdated {
                if let Some(id) = scoped(|it| &it.feature, &self.scopes)
                    && kind == Kind::UsageUpdated
                {
                    put("featureId", &quoted(&id), &mut own);
                }
                if let Some(id) = scoped(|it| &it.currency, &self.scopes) {
                    put("currencyId", &quoted(&id), &mut own);
                }
            }
            if kind == Kind::EntitlementsUpdated
                && let Some(reason) = scoped(|it| &it.access_denied_reason, inner)
            {
                put("accessDeniedReason", &quoted(&reason), &mut own);
            }
            for scope in self.scopes.iter().rev() {
                for (name, raw) in &scope.times {
                    put(name, raw, &mut own);
                }
            }
        }
        text.push('}');
        text
    }
}

/// Merges an event whose usage is in an object of its own, as in GraphQL.
pub(super) fn with_usage<'a>(members: &Members<'a>) -> Option<Members<'a>> {
    let is_usage = |(name, _): &&(Cow<'a, str>, &RawValue)| spelled(name) == Some("usage");
    let (_, usage) = members.0.iter().find(is_usage)?;
    let Members(usage) = Members::of(usage.get(), MAX_OPEN_VALUES)?;
    let mut names = usage.iter().map(|(name, _)| spelled(name));
    if !names.any(|name| name == Some("currentUsage")) {
        return None;
    }
    // Fields of the event take precedence over those of the usage object.
    let own = |(name, raw): &&(Cow<'a, str>, &RawValue)| {
        raw.get() != "null" && spelled(name) != Some("usage")
    };
    let mut merged: Vec<_> = members.0.iter().filter(own).cloned().collect();
    let is_new = |name: &str| {
        let known = spelled(name);
        let same = |(other, _): &(Cow<'a, str>, _)| match known {
            Some(_) => spelled(other) == known,
            None => other == name,
        };
        !merged.iter().any(same)
    };
    let new: Vec<_> = usage.into_iter().filter(|(name, _)| is_new(name)).collect();
    merged.extend(new);
    Some(Members(merged))
}

/// Returns the customer that the entries of a list of entitlements name, if they all name one.
fn customer_of_entries(members: &Members<'_>) -> Option<String> {
    let is_list = |name: &str| matches!(spelled(name), Some("entitlements" | "entitlementsV2"));
    let (_, list) = members.0.iter().find(|(name, _)| is_list(name))?;
    let Entries(entries) = Entries::of(list.get(), MAX_OPEN_VALUES)?;
    let mut customers = entries
        .iter()
        .map(|entry| Scope::of(&Members::of(entry.get(), MAX_OPEN_VALUES)?, None).customer);
    let first = customers.next()??;
    customers
        .all(|customer| customer.as_deref() == Some(first.as_str()))
        .then_some(first)
}

/// Returns the error of an event whose name promises a change that it lacks.
pub(super) fn lacking(kind: Kind) -> Invalid {
    let needs = match kind {
        Kind::EntitlementsUpdated => "a list of entitlements and a customer id",
        Kind::UsageUpdated => "currentUsage, a feature or currency, and a customer id",
        Kind::CreditBalanceUpdated => "totalConsumed, a currency and a customer id",
        Kind::Purge => "customerId, customer.id, customers or customerIds",
        Kind::PackagePublished | Kind::Other => "nothing",
    };
    let kind = kind.as_str();
    Invalid::new(format!(
        "an event named {kind} lacks what it needs: {needs}"
    ))
}
