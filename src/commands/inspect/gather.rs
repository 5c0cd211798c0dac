//! Reads the state of an owner from Redis: known keys by MGET, the others by SCAN.

use std::collections::{BTreeMap, BTreeSet};

use entitlement_sync::keys::{self, KeyKind, Keys, Owner};
use entitlement_sync::store::{AdminClient, StoreError, Ttl};

use entitlement_sync::reader::{Kind, Map, Reading, StoredUsage};

/// A value and its timestamp.
pub struct Pair {
    /// The display name: `entitlements`, `usage of seats`.
    pub name: String,
    pub key: String,
    pub value: Option<String>,
    pub timestamp: Option<String>,
    pub ttl: Ttl,
    pub timestamp_ttl: Ttl,
}

impl Pair {
    pub fn is_there(&self) -> bool {
        self.ttl != Ttl::Missing || self.timestamp_ttl != Ttl::Missing
    }

    /// Returns whether the value or its timestamp is missing.
    pub fn is_torn(&self) -> bool {
        self.value.is_some() != self.timestamp.is_some()
    }
}

/// Everything of one owner.
pub struct Found {
    pub entitlements: Pair,
    pub metadata: Pair,
    /// By feature.
    pub usages: BTreeMap<String, Pair>,
    /// By currency.
    pub credits: BTreeMap<String, Pair>,
    /// Of the customer itself, where the owner is a resource.
    pub global_timestamp: Option<String>,
    pub tombstone: Option<String>,
    /// The remaining time of the lock; `None` if it is not held.
    pub lock: Option<Ttl>,
    pub searched: Searched,
}

/// The results of the SCAN.
#[derive(Clone, Default)]
pub struct Searched {
    pub usages: BTreeSet<String>,
    pub credits: BTreeSet<String>,
    /// Resources of the customer, where the owner is the customer itself.
    pub resources: BTreeSet<String>,
    /// Why the SCAN is incomplete.
    pub left_out: Option<String>,
}

impl Searched {
    /// Scans for keys with the prefix of the owner.
    pub async fn look(
        redis: &AdminClient,
        keys: &Keys,
        owner: Owner<'_>,
        mut tick: impl FnMut(),
    ) -> Result<Self, StoreError> {
        let mut searched = Self::default();
        let mut scan = redis.browse(keys.pattern_of(owner));
        loop {
            match scan.next().await {
                Ok(Some(page)) => {
                    tick();
                    for key in page {
                        searched.note(keys, owner, &key);
                    }
                }
                Ok(None) => return Ok(searched),
                // The worker does not need the permission for SCAN.
                Err(error) if error.needs_a_person() => {
                    searched.left_out = Some(error.to_string());
                    return Ok(searched);
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn note(&mut self, keys: &Keys, owner: Owner<'_>, key: &str) {
        // The pattern also finds customers whose ids begin with this id.
        let Some(parsed) = keys
            .read(key)
            .filter(|parsed| parsed.owner.customer == owner.customer)
        else {
            return;
        };
        if parsed.owner != owner {
            if let (None, Some(resource)) = (owner.resource, parsed.owner.resource) {
                self.resources.insert(resource.to_owned());
            }
            return;
        }
        match parsed.kind {
            KeyKind::FeatureUsage(feature) => self.usages.insert(feature.to_owned()),
            KeyKind::CreditUsage(currency) => self.credits.insert(currency.to_owned()),
            KeyKind::Entitlements | KeyKind::Metadata | KeyKind::Tombstone => false,
        };
    }
}

impl Found {
    pub async fn gather(
        redis: &AdminClient,
        keys: &Keys,
        owner: Owner<'_>,
        searched: Searched,
    ) -> Result<Self, StoreError> {
        let global = Owner {
            resource: None,
            ..owner
        };
        let named = [
            ("entitlements".to_owned(), keys.entitlements(owner)),
            ("metadata".to_owned(), keys.metadata(owner)),
        ];
        let [entitlements, metadata] = pairs(redis, named.to_vec())
            .await?
            .try_into()
            .map_err(|_: Vec<Pair>| StoreError::protocol())?;
        let mut usages = searched.usages.clone();
        let mut credits = searched.credits.clone();
        if let Map::Entries(entries) = Map::read(entitlements.value.as_deref()) {
            for (feature, stored) in &entries {
                let read = Reading::of(feature, stored.get(), |_| StoredUsage::default(), 0.0);
                if read.entitlement.kind == Kind::Metered {
                    usages.insert(feature.clone());
                }
                credits.extend(read.credit_currency);
            }
        }
        let rest = [
            keys.lock(owner),
            keys.tombstone(owner),
            keys::timestamp(&keys.entitlements(global)),
        ];
        let ttl = redis.ttls(&rest[..1]).await?;
        let mut values = redis.values(&rest).await?;
        let global_timestamp = values.pop().flatten().filter(|_| owner.resource.is_some());
        Ok(Self {
            usages: by_id(redis, usages, "usage of", |id| {
                keys.feature_usage(owner, id)
            })
            .await?,
            credits: by_id(redis, credits, "credit", |id| keys.credit_usage(owner, id)).await?,
            entitlements,
            metadata,
            global_timestamp,
            tombstone: values.pop().flatten(),
            lock: ttl.first().copied().filter(|ttl| *ttl != Ttl::Missing),
            searched,
        })
    }

    /// Returns whether Redis holds a key that an SDK reads first.
    pub fn is_known(&self) -> bool {
        self.entitlements.is_there() || self.metadata.is_there()
    }

    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        [&self.entitlements, &self.metadata]
            .into_iter()
            .chain(self.usages.values())
            .chain(self.credits.values())
    }
}

async fn by_id(
    redis: &AdminClient,
    ids: BTreeSet<String>,
    name: &str,
    key: impl Fn(&str) -> String,
) -> Result<BTreeMap<String, Pair>, StoreError> {
    let named = ids.iter().map(|id| (format!("{name} {id}"), key(id)));
    let found = pairs(redis, named.collect()).await?;
    Ok(ids.into_iter().zip(found).collect())
}

async fn pairs(redis: &AdminClient, named: Vec<(String, String)>) -> Result<Vec<Pair>, StoreError> {
    let both: Vec<String> = named
        .iter()
        .flat_map(|(_, key)| [key.clone(), keys::timestamp(key)])
        .collect();
    // Reads the values last, so that a pair that expires meanwhile does not look torn.
    let ttls = redis.ttls(&both).await?;
    let values = redis.values(&both).await?;
    let mut found = values.into_iter().zip(ttls);
    let mut pairs = Vec::with_capacity(named.len());
    for (name, key) in named {
        let (Some((value, ttl)), Some((timestamp, timestamp_ttl))) = (found.next(), found.next())
        else {
            return Err(StoreError::protocol());
        };
        pairs.push(Pair {
            name,
            key,
            value,
            timestamp,
            ttl,
            timestamp_ttl,
        });
    }
    Ok(pairs)
}
