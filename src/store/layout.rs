//! Samples customers in Redis, to find whether SDKs or the vendor's service write a newer layout than ours.

use fred::prelude::*;
use fred::types::{Key, Value};

use super::admin::Browse;
use super::{Store, StoreError};
use crate::keys::Keys;

/// The layouts of a sample of customers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layouts {
    /// Customers and resources in the sample.
    pub looked_at: usize,
    /// Those of them in the layout of SDK 4.12 and later.
    pub newer: usize,
}

/// The advice if customers have the newer layout.
pub const NEWER_LAYOUT_ADVICE: &str = "set CACHE_UPDATE_POLICY=INVALIDATE: what the worker writes over such a customer denies its credits \
     until an SDK loads it again; docs/compatibility.md says which fleet wants which policy";

/// Maximum pages of keys to scan, of about a thousand keys each.
const MAX_PAGES: usize = 100;
const MAX_CUSTOMERS: usize = 100;
/// Values per call; few, since some are large.
const VALUES_PER_CALL: usize = 10;
/// A field that every entry of the newer layout has, and no entry of ours. Within a JSON string its quotes
/// would be escaped.
const NEWER_FIELD: &str = "\"usageData\":";

/// Warns once if SDKs write a layout that the worker would overwrite. Without the permission for SCAN the layout is
/// unknown, which is logged.
pub async fn warn_of_newer_layout(store: Store) {
    store.gate().opened().await;
    match store.layouts().await {
        Ok(Layouts {
            looked_at,
            newer: newer @ 1..,
        }) => tracing::warn!(
            looked_at,
            newer,
            advice = NEWER_LAYOUT_ADVICE,
            "customers in Redis are in the layout of SDK 4.12 and later"
        ),
        Ok(_) => {}
        Err(error) => {
            tracing::info!(
                %error,
                advice = "grant +scan to be warned if SDKs write another layout",
                "the layout of customers in Redis was not checked"
            );
        }
    }
}

/// Reads a sample of customers. Only reads.
pub(super) async fn look(client: &Client, keys: &Keys) -> Result<Layouts, StoreError> {
    let mut pages = Browse::new(client.clone(), keys.pattern_of_customers());
    let mut layouts = Layouts::default();
    for _ in 0..MAX_PAGES {
        let Some(mut page) = pages.next().await? else {
            break;
        };
        page.retain(|key| keys.owner_of(key).is_some());
        page.truncate(MAX_CUSTOMERS - layouts.looked_at);
        for chunk in page.chunks(VALUES_PER_CALL) {
            let chunk: Vec<Key> = chunk.iter().map(|key| key.as_str().into()).collect();
            let values: Vec<Value> = client.mget(chunk).await?;
            let texts: Vec<_> = values.iter().filter_map(Value::as_str).collect();
            let newer = texts.iter().filter(|text| text.contains(NEWER_FIELD));
            layouts.newer += newer.count();
            layouts.looked_at += texts.len();
        }
        if layouts.looked_at >= MAX_CUSTOMERS {
            break;
        }
    }
    Ok(layouts)
}
