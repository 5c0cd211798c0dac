//! Prints what a file holds of a customer, as `inspect` does for Redis.

use std::collections::BTreeMap;

use entitlement_sync::clock::now_ms;
use entitlement_sync::keys::KeyKind;
use entitlement_sync::memory::CellEntry;
use entitlement_sync::message::Millis;
use entitlement_sync::reader::State;
use entitlement_sync::store::Ttl;
use serde_json::{Value, json};

use super::held::{Change, Held};
use super::report::{millis, point};
use crate::commands::inspect::gather::{Found, Pair, Searched};
use crate::commands::inspect::json::decided;
use crate::commands::inspect::report::{Place, Report, Resource};
use crate::commands::{inspect, output, when};

impl Held<'_> {
    pub fn print(&self) -> anyhow::Result<()> {
        output::line("")?;
        if let Some((state, known_at)) = &self.copied {
            print_copy(state, *known_at)?;
        } else if !self.changes.is_empty() {
            print_changes(&self.changes)?;
        } else {
            return self.report().print();
        }
        let row = |(id, at): (&String, &Option<Millis>)| [id.clone(), age(*at)];
        let rows: Vec<_> = self.resources.iter().map(row).collect();
        if !rows.is_empty() {
            output::line("")?;
        }
        output::table(["RESOURCE", "AGE"], &rows)
    }

    pub fn to_json(&self) -> Value {
        let mut json = if let Some((state, known_at)) = &self.copied {
            let now = now_ms() as f64;
            let entries = state.entries(now).map(|entry| decided(&entry.entitlement));
            json!({
                "is_there": true,
                "known_at": known_at,
                "updated_at": state.updated_at(),
                "entitlements": entries.collect::<Vec<_>>(),
            })
        } else if !self.changes.is_empty() {
            json!({"is_there": true, "changes": self.changes})
        } else {
            return self.report().to_json();
        };
        json["customer"] = json!(self.owner.customer);
        json["resource"] = json!(self.owner.resource);
        json["resources"] = json!(self.resources);
        json
    }

    fn report(&self) -> Report<'_> {
        let found = self.found();
        let global = found.entitlements.timestamp.clone();
        let resource = |(id, at): (&String, &Option<Millis>)| {
            let at = at.map(|at| at.to_string());
            Resource::new(id, at.as_deref(), global.as_deref())
        };
        let resources = self.resources.iter().map(resource).collect();
        let now = now_ms();
        Report::new(Place::Snapshot, self.owner, None, found, resources, now)
    }

    fn found(&self) -> Found {
        let mut found = Found {
            entitlements: missing("entitlements", self.keys.entitlements(self.owner)),
            metadata: missing("metadata", self.keys.metadata(self.owner)),
            usages: BTreeMap::new(),
            credits: BTreeMap::new(),
            global_timestamp: self.customer_at.map(|at| at.to_string()),
            tombstone: None,
            lock: None,
            searched: Searched::default(),
        };
        let Some(stored) = &self.stored else {
            return found;
        };
        found.tombstone = stored.tombstone.map(|(at, _)| at.to_string());
        for cell in &stored.cells {
            let pair = self.pair([&*stored.owner, &cell.suffix].concat(), cell);
            match self.keys.read(&pair.key).map(|key| key.kind) {
                Some(KeyKind::FeatureUsage(id)) => {
                    found.usages.insert(id.to_owned(), pair);
                }
                Some(KeyKind::CreditUsage(id)) => {
                    found.credits.insert(id.to_owned(), pair);
                }
                Some(KeyKind::Metadata) => found.metadata = pair,
                Some(KeyKind::Entitlements) => found.entitlements = pair,
                Some(KeyKind::Tombstone) | None => {}
            }
        }
        found
    }

    fn pair(&self, key: String, cell: &CellEntry) -> Pair {
        let ttl = match cell.expires {
            Millis::MAX => Ttl::Forever,
            expires => Ttl::Secs(expires.saturating_sub(now_ms()) / 1_000),
        };
        Pair {
            name: self.name(&key),
            key,
            value: Some(cell.value.to_string()),
            timestamp: Some(cell.at.to_string()),
            ttl,
            timestamp_ttl: ttl,
        }
    }
}

fn missing(name: &str, key: String) -> Pair {
    Pair {
        name: name.to_owned(),
        key,
        value: None,
        timestamp: None,
        ttl: Ttl::Missing,
        timestamp_ttl: Ttl::Missing,
    }
}

fn print_copy(state: &State, known_at: Millis) -> anyhow::Result<()> {
    let now = now_ms();
    let known = age(Some(known_at));
    let updated = state.updated_at().and_then(|at| u64::try_from(at).ok());
    output::line(format!("known to be true {known} ago"))?;
    output::line(format!("changed at its source {} ago", age(updated)))?;
    if state.is_empty() {
        return output::line("no entitlements");
    }
    output::line("")?;
    let entries: Vec<_> = state.entries(now as f64).collect();
    inspect::print::entitlements(entries.iter().map(|entry| &entry.entitlement), now)
}

fn print_changes(changes: &[Change]) -> anyhow::Result<()> {
    let row = |it: &Change| {
        [
            it.applied_at.map_or_else(|| "-".to_owned(), point),
            it.change.to_owned(),
            it.name.clone(),
            point(it.at),
            it.value.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = changes.iter().map(row).collect();
    output::table(["APPLIED", "CHANGE", "OF", "TIME", "VALUE"], &rows)
}

fn age(at: Option<Millis>) -> String {
    let ago = |at| when::ago(millis(now_ms()) - millis(at));
    at.map_or_else(|| "unknown".to_owned(), ago)
}
