//! Reads the keys of one owner that must hold together.

use std::collections::BTreeMap;

use super::wire::{Reply, Wire};
use crate::keys::{Keys, Owner, timestamp};
use crate::reader::{Pair, Stored, metered_features};
use crate::store::StoreError;

/// Keys of one call: Redis serves nothing else while it runs.
const KEYS_PER_CALL: usize = 500;
/// How often reading begins again because the values changed meanwhile.
const MAX_TRIES: usize = 3;
pub const CHANGING: &str = "the values changed while they were read, 3 times in a row";

/// Reads all of an owner: `begin` is called before each try, and what it gave for the one that
/// succeeded is returned too.
pub async fn read<T>(
    wire: &Wire,
    keys: &Keys,
    owner: Owner<'_>,
    begin: impl Fn() -> T,
) -> Result<(Stored, T), StoreError> {
    for _ in 0..MAX_TRIES {
        let begun = begin();
        if let Some(stored) = read_once(wire, keys, owner).await? {
            return Ok((stored, begun));
        }
    }
    Err(StoreError::lost(CHANGING.to_owned(), false))
}

/// `None` if the values do not hold together, since one was written meanwhile.
async fn read_once(
    wire: &Wire,
    keys: &Keys,
    owner: Owner<'_>,
) -> Result<Option<Stored>, StoreError> {
    let (map, metadata) = (keys.entitlements(owner), keys.metadata(owner));
    // What the usages must hold together with: read again after them.
    let mut times = vec![timestamp(&map)];
    if owner.resource.is_some() {
        let customer = Owner {
            resource: None,
            ..owner
        };
        times.push(timestamp(&keys.entitlements(customer)));
    }
    let mut first = vec![map, timestamp(&metadata), metadata];
    first.extend(times.iter().cloned());
    let mut values = values(wire, &first).await?.into_iter();
    let mut next = || values.next().flatten();
    let map = next();
    let metadata = Pair {
        timestamp: next(),
        value: next(),
    };
    let before = [next(), next()];

    let features = metered_features(map.as_deref());
    let mut usages = BTreeMap::new();
    if !features.is_empty() {
        let usages_of = |feature: &String| {
            let usage = keys.feature_usage(owner, feature);
            [timestamp(&usage), usage]
        };
        let mut second: Vec<String> = features.iter().flat_map(usages_of).collect();
        // Last, since there may be several calls.
        second.extend(times);
        let read = self::values(wire, &second).await?;
        let (read, after) = read.split_at(2 * features.len());
        if after != &before[..after.len()] {
            return Ok(None);
        }
        let pairs = read.chunks_exact(2).map(|usage| Pair {
            timestamp: usage[0].clone(),
            value: usage[1].clone(),
        });
        usages.extend(features.into_iter().zip(pairs));
    }
    let [timestamp, customer_timestamp] = before;
    Ok(Some(Stored {
        entitlements: Pair {
            value: map,
            timestamp,
        },
        metadata,
        usages,
        customer_timestamp,
    }))
}

/// The values of keys, in their order; `None` for a key that is not there, or holds no string.
pub async fn values(wire: &Wire, keys: &[String]) -> Result<Vec<Option<String>>, StoreError> {
    let mut values = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(KEYS_PER_CALL) {
        let mut words: Vec<&[u8]> = vec![b"MGET"];
        words.extend(chunk.iter().map(String::as_bytes));
        let found = match wire.call(&words).await? {
            Reply::List(found) if found.len() == chunk.len() => found,
            _ => return Err(StoreError::protocol()),
        };
        values.extend(found.into_iter().map(text));
    }
    Ok(values)
}

/// What is not UTF-8 is read as SDKs read it, with replacement characters.
fn text(value: Reply) -> Option<String> {
    match value {
        Reply::Text(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        _ => None,
    }
}
