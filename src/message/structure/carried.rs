//! Which change an object carries, and the event in the published spelling that says so.

use serde_json::value::RawValue;

use super::Search;
use super::scope::{Name, Scope};
use super::text::{Members, push_string, rewrite};
use super::vocabulary::spelled;
use crate::message::Invalid;
use crate::message::change::{self, Times};
use crate::message::fields::explain;
use crate::message::kind::{Kind, Meaning};
use crate::message::wire::{Event, Object};

impl Search<'_> {
    /// Takes the change that this object carries, if it carries one.
    pub(super) fn take(&mut self, members: &Members<'_>) -> bool {
        let name = self
            .scopes
            .iter()
            .rev()
            .find_map(|scope| scope.name.clone());
        let named = self.scopes.iter().rev().find_map(|scope| {
            let name = scope.name.as_ref()?;
            match name.meaning {
                Meaning::Effect(kind) => Some(kind),
                _ => None,
            }
        });
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
        } else if is_list("entitlements") {
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

    /// Reads the change as the first pass reads one, with what the objects around it tell.
    fn push(&mut self, kind: Kind, name: Option<Name>, members: &Members<'_>) -> bool {
        let text = self.event(kind, members);
        let times = Times {
            timestamp: self
                .scopes
                .iter()
                .rev()
                .find_map(|scope| scope.timestamp)
                .map(Ok),
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
                change.path = Some(format!("${}", self.path));
                self.found.push((kind, name, change.into_owned()));
            }
            Err(reason) => self.refuse(kind, reason),
        }
        true
    }

    /// The event in the published spelling: its own fields, and of those it lacks what is around it.
    fn event(&self, kind: Kind, members: &Members<'_>) -> String {
        const FIELDS: [&str; 21] = [
            "customerId",
            "customer",
            "customers",
            "customerIds",
            "resourceId",
            "resource",
            "entitlements",
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
        // Of two spellings of one name the last counts.
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

/// The event whose usage is an object of its own, beside its reference or its time, in one piece.
pub(super) fn with_usage_beside<'a>(members: &Members<'a>) -> Option<Members<'a>> {
    let find = |members: &Members<'a>, wanted: &str| {
        let is_wanted = |(name, raw): &(String, &RawValue)| {
            spelled(name) == Some(wanted) && raw.get() != "null"
        };
        members.0.iter().rposition(is_wanted)
    };
    let place = find(members, "usage")?;
    find(members, "entitlementReference").or_else(|| find(members, "entitlement"))?;
    let usage = Members::of(members.0[place].1.get())?;
    find(&usage, "currentUsage")?;
    let mut joined = members.0.clone();
    joined.remove(place);
    let told = usage.0.into_iter().filter(|(_, raw)| raw.get() != "null");
    joined.extend(told);
    Some(Members(joined))
}

/// The customer that the entries of a list of entitlements name, if it is one.
fn customer_of_entries(members: &Members<'_>) -> Option<String> {
    let (_, list) = members
        .0
        .iter()
        .find(|(name, _)| spelled(name) == Some("entitlements"))?;
    let entries = serde_json::from_str::<Vec<&RawValue>>(list.get()).ok()?;
    let mut customers = entries
        .iter()
        .map(|entry| Scope::of(&Members::of(entry.get())?, None).customer);
    let first = customers.next()??;
    customers
        .all(|customer| customer.as_deref() == Some(first.as_str()))
        .then_some(first)
}
