//! Looking through all keys, a page at a time: Redis serves others in between.

use fred::clients::Client;
use fred::prelude::*;
use fred::types::Value;
use fred::types::scan::Scanner;
use futures_util::{StreamExt, TryStreamExt};

use super::Direct;
use crate::store::StoreError;

/// Keys that Redis looks at before it serves others.
const PAGE: u32 = 1_000;

impl Direct {
    /// Hands over every key that matches a glob, in no order; one that is moved meanwhile may come
    /// twice. Keys that are not UTF-8 are none of ours.
    pub async fn scan(&self, pattern: &str, mut found: impl FnMut(&str)) -> Result<(), StoreError> {
        let client: &Client = &self.client;
        // Of a refusal in the middle of a scan fred says no more than that it is no page.
        let _first: Value = client.scan_page("0", pattern, Some(1), None).await?;
        let mut pages = match client.is_clustered() {
            true => client.scan_cluster(pattern, Some(PAGE), None).boxed(),
            false => client.scan(pattern, Some(PAGE), None).boxed(),
        };
        while let Some(mut page) = pages.try_next().await? {
            for key in page.take_results().unwrap_or_default() {
                if let Some(key) = key.as_str() {
                    found(key);
                }
            }
            page.next();
        }
        Ok(())
    }
}
