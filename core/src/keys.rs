//! Builds and parses the Redis keys. No other module does.
//!
//! The layout is the one that Stigg's server SDK reads; see docs/compatibility.md for its source.
//! Ids are used unchanged, so an id that would build another entity's key is refused.

use std::fmt;

/// Builds the keys of one environment.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

/// A customer, or one resource of a customer, which owns keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner<'a> {
    pub customer: &'a str,
    pub resource: Option<&'a str>,
}

/// A parsed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedKey<'a> {
    pub owner: Owner<'a>,
    pub kind: KeyKind<'a>,
    /// Whether it is the timestamp key and not the value.
    pub is_timestamp: bool,
}

/// The kind of a key of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind<'a> {
    Entitlements,
    FeatureUsage(&'a str),
    CreditUsage(&'a str),
    Metadata,
    Tombstone,
}

impl Keys {
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
        }
    }

    /// Returns the key of the entitlements of a customer or of one of its resources.
    pub fn entitlements(&self, owner: Owner<'_>) -> String {
        self.owned(owner, "", "")
    }

    /// Returns the key of the usage of one metered feature.
    pub fn feature_usage(&self, owner: Owner<'_>, feature: &str) -> String {
        self.owned(owner, ":f_", feature)
    }

    /// Returns the key of the usage of one credit currency.
    pub fn credit_usage(&self, owner: Owner<'_>, currency: &str) -> String {
        self.owned(owner, ":credit_", currency)
    }

    /// Returns the key of the metadata: why the whole customer is denied, if it is.
    pub fn metadata(&self, owner: Owner<'_>) -> String {
        self.owned(owner, ":metadata", "")
    }

    /// Returns the key of the tombstone: the time of the last purge. No SDK reads it.
    pub fn tombstone(&self, owner: Owner<'_>) -> String {
        self.owned(owner, TOMBSTONE, "")
    }

    /// Returns the key of the write lock that SDK processes hold around their writes.
    pub fn lock(&self, owner: Owner<'_>) -> String {
        match owner.resource {
            Some(resource) => [&self.prefix, "-", owner.customer, ":", resource].concat(),
            None => [&self.prefix, "-", owner.customer].concat(),
        }
    }

    /// Returns the key of the dead-letter stream, for queues without a redrive policy.
    pub fn dead_letters(&self) -> String {
        format!("{}:dead-letter", self.prefix)
    }

    /// Returns the key of the marker: while it keeps its value, Redis has not lost its data.
    pub fn marker(&self) -> String {
        format!("{}:entitlement-sync", self.prefix)
    }

    /// Returns a key that `check` writes and deletes.
    pub fn scratch(&self, token: &str) -> String {
        format!("{}:entitlement-sync:check-{token}", self.prefix)
    }

    /// Returns a glob for the keys of all customers; the prefix is escaped.
    pub fn pattern_of_customers(&self) -> String {
        pattern(&format!("{}:c_", self.prefix))
    }

    /// Returns a glob for SCAN: all keys of an owner, and of others whose ids begin with its id. Parse the keys found
    /// by [`read`](Self::read).
    pub fn pattern_of(&self, owner: Owner<'_>) -> String {
        pattern(&self.entitlements(owner))
    }

    /// Returns a glob for SCAN: all keys of this environment except the locks, which have another prefix.
    pub fn pattern_of_all(&self) -> String {
        pattern(&format!("{}:", self.prefix))
    }

    /// Parses a key of this environment; `None` for a key without an owner.
    pub fn read<'a>(&self, key: &'a str) -> Option<ParsedKey<'a>> {
        let rest = key.strip_prefix(self.prefix.as_str())?;
        let rest = rest.strip_prefix(":c_")?;
        let (rest, is_timestamp) = match rest.strip_suffix(TIMESTAMP) {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        // Ids of owners contain no infix, so they end at the first one.
        let (owner, kind) = match first_infix(rest, &[":f_", ":credit_"]) {
            Some((owner, ":f_", id)) => (owner, KeyKind::FeatureUsage(id)),
            Some((owner, _, id)) => (owner, KeyKind::CreditUsage(id)),
            None => match (rest.strip_suffix(":metadata"), rest.strip_suffix(TOMBSTONE)) {
                (Some(owner), _) => (owner, KeyKind::Metadata),
                (None, Some(owner)) => (owner, KeyKind::Tombstone),
                (None, None) => (rest, KeyKind::Entitlements),
            },
        };
        let (customer, resource) = match owner.split_once(":r_") {
            Some((customer, resource)) => (customer, Some(resource)),
            None => (owner, None),
        };
        Some(ParsedKey {
            owner: Owner { customer, resource },
            kind,
            is_timestamp,
        })
    }

    /// Returns the owner of an entitlements key; `None` for another kind of key.
    pub fn owner_of<'a>(&self, key: &'a str) -> Option<Owner<'a>> {
        let parsed = self.read(key)?;
        let Owner { customer, resource } = parsed.owner;
        let is_id = |id: &str| !id.is_empty() && collision_of_owner(id).is_none();
        let is_owner = is_id(customer) && resource.is_none_or(is_id);
        (parsed.kind == KeyKind::Entitlements && !parsed.is_timestamp && is_owner)
            .then_some(parsed.owner)
    }

    fn owned(&self, owner: Owner<'_>, infix: &str, id: &str) -> String {
        let resource = owner.resource.map_or(0, |resource| resource.len() + 3);
        let length =
            self.prefix.len() + 3 + owner.customer.len() + resource + infix.len() + id.len();
        let mut key = String::with_capacity(length);
        key.push_str(&self.prefix);
        key.push_str(":c_");
        key.push_str(owner.customer);
        if let Some(resource) = owner.resource {
            key.push_str(":r_");
            key.push_str(resource);
        }
        key.push_str(infix);
        key.push_str(id);
        key
    }
}

/// Returns the timestamp key of `key`, which holds the time of its value at the source.
pub fn timestamp(key: &str) -> String {
    let mut timestamp = String::with_capacity(key.len() + TIMESTAMP.len());
    timestamp.push_str(key);
    timestamp.push_str(TIMESTAMP);
    timestamp
}

/// Returns the value key of a timestamp key.
pub fn value_of(timestamp: &str) -> Option<&str> {
    timestamp.strip_suffix(TIMESTAMP)
}

/// Returns the tombstone key of the owner of an entitlements key.
pub fn tombstone_of(entitlements: &str) -> String {
    [entitlements, TOMBSTONE].concat()
}

/// Returns the entitlements key of the owner of a tombstone key.
pub fn owner_of_tombstone(tombstone: &str) -> &str {
    tombstone.strip_suffix(TOMBSTONE).unwrap_or(tombstone)
}

pub const TIMESTAMP: &str = "#timestamp";
const TOMBSTONE: &str = "#purged";

/// Returns a glob for all keys that begin with this literal text.
fn pattern(start: &str) -> String {
    let mut pattern = String::with_capacity(start.len() + 1);
    for letter in start.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('*');
    pattern
}

/// Splits a text at the first of some infixes, and returns which one it is.
fn first_infix<'a, 'b>(text: &'a str, infixes: &[&'b str]) -> Option<(&'a str, &'b str, &'a str)> {
    let found = infixes
        .iter()
        .filter_map(|infix| Some((text.find(infix)?, *infix)));
    let (at, infix) = found.min_by_key(|(at, _)| *at)?;
    Some((&text[..at], infix, &text[at + infix.len()..]))
}

/// The part of an id that would make its keys those of another entity. It is the predicate of a sentence about the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collision(&'static str);

impl fmt::Display for Collision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = self.0;
        write!(
            formatter,
            "contains \"{part}\", so its keys would collide with another entity's"
        )
    }
}

/// Returns why a customer or resource id cannot be used: customer `a:f_x` would write its entitlements over the usage
/// of feature `x` of customer `a`.
pub fn collision_of_owner(id: &str) -> Option<Collision> {
    // Nearly every id ends here: each text below begins with one of these.
    if !id.bytes().any(|byte| matches!(byte, b':' | b'#')) {
        return None;
    }
    [":r_", ":f_", ":credit_"]
        .into_iter()
        .find(|infix| id.contains(infix))
        .or_else(|| id.ends_with(":metadata").then_some(":metadata"))
        .map(Collision)
        .or_else(|| collision_of_suffix(id))
}

/// Returns why a feature or currency id, which is the last part of its key, cannot be used.
pub fn collision_of_suffix(id: &str) -> Option<Collision> {
    [TIMESTAMP, TOMBSTONE]
        .into_iter()
        .find(|suffix| id.ends_with(suffix))
        .map(Collision)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const ACME: Owner<'_> = Owner {
        customer: "acme",
        resource: None,
    };
    const SITE: Owner<'_> = Owner {
        customer: "acme",
        resource: Some("site-1"),
    };

    #[test]
    fn spells_the_layout_of_the_sdk() {
        let keys = Keys::new("production");
        assert_eq!(keys.entitlements(ACME), "production:c_acme");
        assert_eq!(keys.entitlements(SITE), "production:c_acme:r_site-1");
        assert_eq!(
            keys.feature_usage(ACME, "seats"),
            "production:c_acme:f_seats"
        );
        assert_eq!(
            keys.feature_usage(SITE, "seats"),
            "production:c_acme:r_site-1:f_seats"
        );
        assert_eq!(
            keys.credit_usage(ACME, "tokens"),
            "production:c_acme:credit_tokens"
        );
        assert_eq!(keys.metadata(SITE), "production:c_acme:r_site-1:metadata");
        assert_eq!(keys.tombstone(ACME), "production:c_acme#purged");
        assert_eq!(keys.lock(ACME), "production-acme");
        assert_eq!(keys.lock(SITE), "production-acme:site-1");
        assert_eq!(
            timestamp("production:c_acme"),
            "production:c_acme#timestamp"
        );
    }

    #[test]
    fn keys_are_parsed_as_they_are_built() {
        let keys = Keys::new("p{1}");
        for customer in ["acme", "a b", "a*?[x]\\", "ä:f", "a:metadatas", "#", "a:r"] {
            for resource in [None, Some("site-1"), Some("r:f")] {
                let owner = Owner { customer, resource };
                for (key, kind) in [
                    (keys.entitlements(owner), KeyKind::Entitlements),
                    (
                        keys.feature_usage(owner, "x:f_y"),
                        KeyKind::FeatureUsage("x:f_y"),
                    ),
                    (
                        keys.feature_usage(owner, "x:metadata"),
                        KeyKind::FeatureUsage("x:metadata"),
                    ),
                    (
                        keys.credit_usage(owner, "a:r_b:f_c"),
                        KeyKind::CreditUsage("a:r_b:f_c"),
                    ),
                    (keys.metadata(owner), KeyKind::Metadata),
                ] {
                    let parsed = |is_timestamp| ParsedKey {
                        owner,
                        kind,
                        is_timestamp,
                    };
                    assert_eq!(keys.read(&key), Some(parsed(false)), "{key}");
                    assert_eq!(keys.read(&timestamp(&key)), Some(parsed(true)), "{key}");
                }
                let tombstone = keys.tombstone(owner);
                assert_eq!(
                    keys.read(&tombstone).map(|parsed| parsed.kind),
                    Some(KeyKind::Tombstone)
                );
            }
        }
        for other in [keys.dead_letters(), keys.marker(), "q:c_acme".into()] {
            assert_eq!(keys.read(&other), None, "{other}");
        }
    }

    #[test]
    fn patterns_take_ids_to_the_letter() {
        let owner = Owner {
            customer: r"a*?[b]\^-c",
            resource: None,
        };
        assert_eq!(Keys::new("p").pattern_of(owner), r"p:c_a\*\?\[b\]\\\^\-c*");
        assert_eq!(Keys::new("p[1]").pattern_of_all(), r"p\[1\]:*");
    }

    #[test]
    fn the_owner_is_read_from_a_key_of_entitlements_alone() {
        let keys = Keys::new("p[1]*");
        for owner in [ACME, SITE] {
            assert_eq!(keys.owner_of(&keys.entitlements(owner)), Some(owner));
            for other in [
                timestamp(&keys.entitlements(owner)),
                keys.metadata(owner),
                keys.feature_usage(owner, "a:r_b"),
                keys.credit_usage(owner, "b"),
                keys.tombstone(owner),
                keys.lock(owner),
                keys.marker(),
            ] {
                assert_eq!(keys.owner_of(&other), None, "{other}");
            }
        }
        assert_eq!(keys.pattern_of_customers(), "p\\[1\\]\\*:c_*");
    }

    /// Every pair of differing (owner, kind of key) spells a differing key, or one of the two ids
    /// is refused.
    #[test]
    fn ids_that_would_share_a_key_are_refused() {
        let ids = [
            "a",
            "b",
            "a:b",
            "a:r_b",
            "a:f_b",
            "a:credit_b",
            "a:metadata",
            "a#timestamp",
            "a#purged",
            "b:f_a",
            "r_b",
            "f_b",
            ":",
            "#",
            "{a}",
            "a\0",
            "a\r\n",
            "a:f",
            "a:r",
        ];
        let keys = Keys::new("p");
        let mut seen: HashMap<String, String> = HashMap::new();
        for customer in ids.iter().filter(|id| collision_of_owner(id).is_none()) {
            for resource in std::iter::once(None).chain(ids.iter().map(Some)) {
                if resource.is_some_and(|id| collision_of_owner(id).is_some()) {
                    continue;
                }
                let owner = Owner {
                    customer,
                    resource: resource.copied(),
                };
                let mut parsed = vec![
                    (format!("{owner:?} map"), keys.entitlements(owner)),
                    (format!("{owner:?} metadata"), keys.metadata(owner)),
                ];
                for id in ids.iter().filter(|id| collision_of_suffix(id).is_none()) {
                    parsed.push((format!("{owner:?} f {id}"), keys.feature_usage(owner, id)));
                    parsed.push((format!("{owner:?} c {id}"), keys.credit_usage(owner, id)));
                }
                parsed.push((format!("{owner:?} tombstone"), keys.tombstone(owner)));
                for (name, key) in parsed {
                    let stamp = timestamp(&key);
                    for (name, key) in [(name.clone(), key), (name + " at", stamp)] {
                        if let Some(other) = seen.insert(key.clone(), name.clone()) {
                            panic!("{name} and {other} are both parsed {key}");
                        }
                    }
                }
            }
        }
    }
}
