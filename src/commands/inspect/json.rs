//! The report as JSON.

use entitlement_sync::reader::{self, Access, Entitlement, Map, Reading, Request, millis};
use entitlement_sync::store::Ttl;
use serde_json::{Value, json};

use super::gather::Pair;
use super::report::{Place, Report, Resource};

impl Report<'_> {
    pub fn to_json(&self) -> Value {
        let answer = |misses: &[&String]| {
            let from = if misses.is_empty() {
                "redis"
            } else {
                "edge-api"
            };
            json!({"from": from, "because": misses})
        };
        let misses: Vec<&String> = self.misses.iter().collect();
        let newer: Vec<&String> = self.misses.iter().chain(&self.misses_newer).collect();
        let tombstone = self.found.tombstone.as_deref().map(|text| {
            let stored = self
                .found
                .entitlements
                .timestamp
                .as_deref()
                .and_then(millis);
            let at = millis(text);
            json!({"at": at, "stored_is_older": stored.zip(at).map(|(stored, at)| stored < at)})
        });
        let resource = |it: &Resource| json!({"id": it.id, "at": it.at, "is_fresh": it.miss.is_none(), "because": it.miss});
        let absent = match (&self.map, self.feature) {
            (Map::Entries(_), Some(_)) if self.entitlements.is_empty() => Some(self.absent()),
            _ => None,
        };
        let mut json = json!({
            "customer": self.owner.customer,
            "resource": self.owner.resource,
            "at": self.now,
            "is_there": self.found.is_known(),
            "entitlements": self.entitlements.iter().map(entitlement).collect::<Vec<_>>(),
            "access_denied_reason": absent,
            "stored": self.shown_pairs().map(|pair| self.pair(pair)).collect::<Vec<_>>(),
            "resources": self.resources.iter().map(resource).collect::<Vec<_>>(),
            "tombstone": tombstone,
            "notes": self.notes(),
        });
        match self.place {
            Place::Redis => {
                json["answer"] = answer(&misses);
                json["answer_4x"] = answer(&newer);
                json["lock"] = self
                    .found
                    .lock
                    .map_or(Value::Null, |ttl| json!({"ttl_secs": secs(ttl)}));
            }
            Place::Snapshot => json["misses"] = json!(misses),
        }
        json
    }

    fn pair(&self, pair: &Pair) -> Value {
        json!({
            "name": pair.name,
            "key": pair.key,
            "value": pair.value,
            "at": pair.timestamp.as_deref().and_then(millis),
            "age_ms": pair.timestamp.as_deref().and_then(|text| self.age(text)),
            "ttl_secs": secs(pair.ttl.soonest(pair.timestamp_ttl)),
            "torn": pair.is_torn(),
        })
    }
}

/// Returns the seconds until expiry; -1 for no expiry, as Redis does.
fn secs(ttl: Ttl) -> Option<i64> {
    match ttl {
        Ttl::Missing => None,
        Ttl::Forever => Some(-1),
        Ttl::Secs(secs) => i64::try_from(secs).ok(),
    }
}

fn entitlement(read: &Reading) -> Value {
    let mut json = decided(&read.entitlement);
    json["misses"] = json!(read.misses);
    json["stored"] = read.entry.clone();
    json
}

/// Returns an entitlement, and what is decided by it if nothing is requested.
pub fn decided(it: &Entitlement<'_>) -> Value {
    let usage = it.usage();
    let access = it.decide(&Request::default());
    let (has_access, reason) = match &access {
        Access::Granted => (Some(true), None),
        Access::Denied(reason) => (Some(false), Some(reason.as_ref())),
        Access::Unreadable(why) => (None, Some(*why)),
    };
    json!({
        "feature": it.feature,
        "type": it.kind.as_str(),
        "limit": it.limit(),
        "unlimited": it.is_unlimited(),
        "soft_limit": it.has_soft_limit(),
        "enum_values": it.enum_values(),
        "usage": usage.as_ref().map(reader::Usage::answered),
        "usage_stored": usage.as_ref().map(|usage| usage.stored),
        "usage_period_is_over": usage.as_ref().map(|usage| usage.is_over),
        "reset_period": it.reset_period(),
        "has_access": has_access,
        "access_denied_reason": reason,
        "valid_until": it.valid_until(),
    })
}
