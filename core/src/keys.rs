//! The only place that spells a Redis key.
//!
//! The layout is the one that Stigg's server SDK reads; see docs/compatibility.md for its source.
//! Ids are used as they come, so an id that would spell another entity's key is refused.

/// Spells the keys of one environment.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

/// A customer, or one resource of that customer, as keys name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner<'a> {
    pub customer: &'a str,
    pub resource: Option<&'a str>,
}

/// A key, read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spelt<'a> {
    pub owner: Owner<'a>,
    pub what: What<'a>,
    /// The timestamp beside it, rather than the value.
    pub is_timestamp: bool,
}

/// What a key of an owner holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
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

    /// The entitlements of a customer or of one of its resources.
    pub fn entitlements(&self, owner: Owner<'_>) -> String {
        self.owned(owner, "", "")
    }

    /// The usage of one metered feature.
    pub fn feature_usage(&self, owner: Owner<'_>, feature: &str) -> String {
        self.owned(owner, ":f_", feature)
    }

    /// The usage of one credit currency.
    pub fn credit_usage(&self, owner: Owner<'_>, currency: &str) -> String {
        self.owned(owner, ":credit_", currency)
    }

    /// Why the customer as a whole is denied, if it is.
    pub fn metadata(&self, owner: Owner<'_>) -> String {
        self.owned(owner, ":metadata", "")
    }

    /// Our tombstone: the time of the last purge. No SDK reads it.
    pub fn tombstone(&self, owner: Owner<'_>) -> String {
        self.owned(owner, "#purged", "")
    }

    /// The write lock that SDK processes hold around their own writes.
    pub fn lock(&self, owner: Owner<'_>) -> String {
        match owner.resource {
            Some(resource) => [&self.prefix, "-", owner.customer, ":", resource].concat(),
            None => [&self.prefix, "-", owner.customer].concat(),
        }
    }

    /// The stream of messages that could not be applied on a queue without a redrive policy.
    pub fn dead_letters(&self) -> String {
        format!("{}:dead-letter", self.prefix)
    }

    /// Our marker: while it keeps its value, Redis has not lost its data.
    pub fn marker(&self) -> String {
        format!("{}:entitlement-sync", self.prefix)
    }

    /// A key that `check` writes and deletes.
    pub fn scratch(&self, token: &str) -> String {
        format!("{}:entitlement-sync:check-{token}", self.prefix)
    }

    /// Every customer's keys, as a pattern of Redis; the prefix stands for itself.
    pub fn pattern_of_customers(&self) -> String {
        pattern(&format!("{}:c_", self.prefix))
    }

    /// A glob for SCAN: everything of an owner, and of others whose ids begin alike. What it finds
    /// is to be read by [`read`](Self::read).
    pub fn pattern_of(&self, owner: Owner<'_>) -> String {
        pattern(&self.entitlements(owner))
    }

    /// A glob for SCAN: everything of this environment but the locks, which begin differently.
    pub fn pattern_of_all(&self) -> String {
        pattern(&format!("{}:", self.prefix))
    }

    /// What a key of this environment holds, and whose it is; `None` for what is no owner's.
    pub fn read<'a>(&self, key: &'a str) -> Option<Spelt<'a>> {
        let rest = key.strip_prefix(self.prefix.as_str())?;
        let rest = rest.strip_prefix(":c_")?;
        let (rest, is_timestamp) = match rest.strip_suffix(TIMESTAMP) {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        // Ids of owners hold no infix, so the first one is where they end.
        let (owner, what) = match first_infix(rest, &[":f_", ":credit_"]) {
            Some((owner, ":f_", id)) => (owner, What::FeatureUsage(id)),
            Some((owner, _, id)) => (owner, What::CreditUsage(id)),
            None => match (rest.strip_suffix(":metadata"), rest.strip_suffix("#purged")) {
                (Some(owner), _) => (owner, What::Metadata),
                (None, Some(owner)) => (owner, What::Tombstone),
                (None, None) => (rest, What::Entitlements),
            },
        };
        let (customer, resource) = match owner.split_once(":r_") {
            Some((customer, resource)) => (customer, Some(resource)),
            None => (owner, None),
        };
        Some(Spelt {
            owner: Owner { customer, resource },
            what,
            is_timestamp,
        })
    }

    /// Whose entitlements a key holds; `None` for a key of another kind.
    pub fn owner_of<'a>(&self, key: &'a str) -> Option<Owner<'a>> {
        let spelt = self.read(key)?;
        let Owner { customer, resource } = spelt.owner;
        let is_id = |id: &str| !id.is_empty() && collision_of_owner(id).is_none();
        let is_owner = is_id(customer) && resource.is_none_or(is_id);
        (spelt.what == What::Entitlements && !spelt.is_timestamp && is_owner).then_some(spelt.owner)
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

/// The key beside `key` that holds when its value was true at the source.
pub fn timestamp(key: &str) -> String {
    let mut timestamp = String::with_capacity(key.len() + TIMESTAMP.len());
    timestamp.push_str(key);
    timestamp.push_str(TIMESTAMP);
    timestamp
}

/// The key whose value a timestamp belongs to.
pub fn value_of(timestamp: &str) -> Option<&str> {
    timestamp.strip_suffix(TIMESTAMP)
}

pub const TIMESTAMP: &str = "#timestamp";

/// A glob that matches all that begins with this text, to the letter.
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

/// The text before and after the first of some infixes, and which it is.
fn first_infix<'a, 'b>(text: &'a str, infixes: &[&'b str]) -> Option<(&'a str, &'b str, &'a str)> {
    let found = infixes
        .iter()
        .filter_map(|infix| Some((text.find(infix)?, *infix)));
    let (at, infix) = found.min_by_key(|(at, _)| *at)?;
    Some((&text[..at], infix, &text[at + infix.len()..]))
}

/// What in a customer or resource id would make its keys spell those of someone else: customer
/// `a:f_x` would write its entitlements over the usage of feature `x` of customer `a`.
pub fn collision_of_owner(id: &str) -> Option<&'static str> {
    [":r_", ":f_", ":credit_"]
        .into_iter()
        .find(|infix| id.contains(infix))
        .or_else(|| id.ends_with(":metadata").then_some(":metadata"))
        .or_else(|| collision_of_suffix(id))
}

/// The same for a feature or currency id, which comes last in its key.
pub fn collision_of_suffix(id: &str) -> Option<&'static str> {
    [TIMESTAMP, "#purged"]
        .into_iter()
        .find(|suffix| id.ends_with(suffix))
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
    fn keys_are_read_back_as_they_are_spelt() {
        let keys = Keys::new("p{1}");
        for customer in ["acme", "a b", "a*?[x]\\", "ä:f", "a:metadatas", "#", "a:r"] {
            for resource in [None, Some("site-1"), Some("r:f")] {
                let owner = Owner { customer, resource };
                for (key, what) in [
                    (keys.entitlements(owner), What::Entitlements),
                    (
                        keys.feature_usage(owner, "x:f_y"),
                        What::FeatureUsage("x:f_y"),
                    ),
                    (
                        keys.feature_usage(owner, "x:metadata"),
                        What::FeatureUsage("x:metadata"),
                    ),
                    (
                        keys.credit_usage(owner, "a:r_b:f_c"),
                        What::CreditUsage("a:r_b:f_c"),
                    ),
                    (keys.metadata(owner), What::Metadata),
                ] {
                    let spelt = |is_timestamp| Spelt {
                        owner,
                        what,
                        is_timestamp,
                    };
                    assert_eq!(keys.read(&key), Some(spelt(false)), "{key}");
                    assert_eq!(keys.read(&timestamp(&key)), Some(spelt(true)), "{key}");
                }
                let tombstone = keys.tombstone(owner);
                assert_eq!(
                    keys.read(&tombstone).map(|spelt| spelt.what),
                    Some(What::Tombstone)
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
                let mut spelt = vec![
                    (format!("{owner:?} map"), keys.entitlements(owner)),
                    (format!("{owner:?} metadata"), keys.metadata(owner)),
                ];
                for id in ids.iter().filter(|id| collision_of_suffix(id).is_none()) {
                    spelt.push((format!("{owner:?} f {id}"), keys.feature_usage(owner, id)));
                    spelt.push((format!("{owner:?} c {id}"), keys.credit_usage(owner, id)));
                }
                spelt.push((format!("{owner:?} tombstone"), keys.tombstone(owner)));
                for (name, key) in spelt {
                    let stamp = timestamp(&key);
                    for (name, key) in [(name.clone(), key), (name + " at", stamp)] {
                        if let Some(other) = seen.insert(key.clone(), name.clone()) {
                            panic!("{name} and {other} are both spelt {key}");
                        }
                    }
                }
            }
        }
    }
}
