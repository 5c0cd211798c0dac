//! The end of a run: the last word on everyone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Dump, Fact, Found, Model, Wrong, describe, own_key, shorten};

impl Model {
    /// After the last word: every key is exactly what was said last. Judge first.
    pub fn settled(&self, last: &[(usize, Fact)], dump: &Dump) -> Vec<Wrong> {
        let mut expected: BTreeMap<String, (u64, Arc<str>, usize)> = BTreeMap::new();
        for (owner, fact) in last {
            let prefix = self.owners[*owner].key();
            let mut put = |suffix: &str, at: u64, value: &Arc<str>| {
                let newest = (at, value.clone(), *owner);
                let slot = expected
                    .entry(format!("{prefix}{suffix}"))
                    .or_insert_with(|| newest.clone());
                if slot.0 <= at {
                    *slot = newest;
                }
            };
            match fact {
                Fact::Set {
                    at,
                    entitlements,
                    metadata,
                    usages,
                } => {
                    put("", *at, entitlements);
                    put(":metadata", *at, metadata);
                    for item in usages {
                        put(&item.of.suffix(), item.at, &item.value);
                    }
                }
                Fact::Usage(item) => put(&item.of.suffix(), item.at, &item.value),
                Fact::Purge { .. } | Fact::Sdk { .. } | Fact::SdkUsage { .. } => {}
            }
        }
        let mut wrong = Vec::new();
        for (key, (at, value, owner)) in &expected {
            let stamp = dump.get(&format!("{key}#timestamp"));
            let found = Found {
                value: dump.get(key).map(String::as_str),
                stamp: stamp.map(String::as_str),
            };
            if !found.is(*at, value) {
                wrong.push(Wrong {
                    key: key.clone(),
                    what: if found.is_torn() {
                        "torn"
                    } else if found.at().is_none_or(|found| found < *at) {
                        "lost"
                    } else {
                        "wrong"
                    },
                    expected: format!("{at}: {}", shorten(value)),
                    found: describe(found),
                    history: self.history(*owner),
                });
            }
        }
        for key in dump.keys() {
            let value_key = key.strip_suffix("#timestamp").unwrap_or(key);
            if !own_key(key) && !key.ends_with("#purged") && !expected.contains_key(value_key) {
                wrong.push(Wrong {
                    key: key.clone(),
                    what: "unexpected",
                    expected: "no such key".into(),
                    found: shorten(&dump[key]),
                    history: Vec::new(),
                });
            }
        }
        wrong
    }
}
