//! Scans keys by SCAN with pauses, so that Redis keeps serving other clients.

use std::time::{Duration, Instant};

use bytes_utils::Str;
use fred::clients::Pipeline;
use fred::prelude::*;
use fred::types::Key;

use super::{AdminClient, KEYS_PER_CALL};
use crate::store::StoreError;

/// Keys that one SCAN visits, whether they match or not.
pub const KEYS_PER_PAGE: u32 = 1_000;
/// The timeout of one page.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest pause between two pages.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Pages of keys. SCAN returns every key that exists during the whole scan. It may return a key twice while Redis
/// resizes its table.
pub struct Browse {
    client: Client,
    pattern: Str,
    /// `None` after the last page.
    cursor: Option<Str>,
    since: Instant,
}

impl Browse {
    pub(in crate::store) fn new(client: Client, pattern: String) -> Self {
        Self {
            client,
            pattern: pattern.into(),
            cursor: Some("0".into()),
            since: Instant::now(),
        }
    }

    /// Returns the keys of the next page, often none; `None` after the last page. Pauses between two pages
    /// for as long as the work since the last page took, so that Redis works for this client half of
    /// the time at most.
    pub async fn next(&mut self) -> Result<Option<Vec<String>>, StoreError> {
        tokio::time::sleep(self.since.elapsed().min(MAX_PAUSE)).await;
        self.since = Instant::now();
        let Some(from) = self.cursor.take() else {
            return Ok(None);
        };
        // Requests each page itself: the scan stream of fred hides the errors of Redis.
        let page = self.client.scan_page::<(Str, Vec<Key>), _, _>(
            from,
            self.pattern.clone(),
            Some(KEYS_PER_PAGE),
            None,
        );
        let page = tokio::time::timeout(PAGE_TIMEOUT, page).await;
        let (next, keys) = page.map_err(|_| StoreError::timeout())??;
        self.cursor = Some(next).filter(|next| *next != "0");
        let text = |key: Key| key.as_str_lossy().into_owned();
        Ok(Some(keys.into_iter().map(text).collect()))
    }
}

impl AdminClient {
    /// Returns every key that matches. All keys of an environment are on one primary, in a cluster too.
    pub fn browse(&self, pattern: String) -> Browse {
        Browse::new(self.client.clone(), pattern)
    }

    /// Passes on every key that matches, in any order; a key may occur twice.
    pub async fn scan(
        &self,
        pattern: String,
        mut found: impl FnMut(&str),
    ) -> Result<(), StoreError> {
        let mut pages = self.browse(pattern);
        while let Some(page) = pages.next().await? {
            page.iter().for_each(|key| found(key));
        }
        Ok(())
    }

    /// Returns the number of all keys in this Redis; `None` where DBSIZE is denied.
    pub async fn size(&self) -> Option<u64> {
        self.client.dbsize().await.ok()
    }

    /// Returns which of these keys exist.
    pub async fn exist(&self, keys: &[String]) -> Result<Vec<bool>, StoreError> {
        self.each(keys, async |pipeline, key| pipeline.exists(key).await)
            .await
    }

    /// Returns the memory of keys, by MEMORY USAGE; `None` for a key that no longer exists.
    pub async fn memory(&self, keys: &[String]) -> Result<Vec<Option<u64>>, StoreError> {
        self.each(keys, async |pipeline, key| {
            pipeline.memory_usage(key, None).await
        })
        .await
    }

    /// Runs one command for each key, in a few round trips.
    async fn each<T: FromValue>(
        &self,
        keys: &[String],
        command: impl AsyncFn(&Pipeline<Client>, &str) -> Result<(), Error>,
    ) -> Result<Vec<T>, StoreError> {
        let mut answers = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(KEYS_PER_CALL) {
            let pipeline = self.client.pipeline();
            for key in chunk {
                command(&pipeline, key).await?;
            }
            answers.extend(pipeline.all::<Vec<T>>().await?);
        }
        Ok(answers)
    }
}
