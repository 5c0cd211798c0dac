//! Looking through keys by SCAN, so gently that Redis goes on serving others meanwhile.

use std::time::{Duration, Instant};

use bytes_utils::Str;
use fred::clients::Pipeline;
use fred::prelude::*;
use fred::types::Key;

use super::{AdminClient, KEYS_PER_CALL};
use crate::store::StoreError;

/// Keys that one SCAN looks at, whether they match or not.
pub const KEYS_PER_PAGE: u32 = 1_000;
/// A page that has not come by then does not come any more.
const PAGE_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest pause between two pages.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Pages of keys. SCAN may give a key twice while Redis grows or shrinks its table, and gives every
/// key that is there all the while.
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

    /// The keys of the next page, often none; `None` after the last page. Between two pages there
    /// is a pause as long as what was done since the last one, so that Redis works for us half of
    /// the time at most.
    pub async fn next(&mut self) -> Result<Option<Vec<String>>, StoreError> {
        tokio::time::sleep(self.since.elapsed().min(MAX_PAUSE)).await;
        self.since = Instant::now();
        let Some(from) = self.cursor.take() else {
            return Ok(None);
        };
        // Page by page: the stream of the client hides what Redis says when it refuses.
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
    /// Every key that matches. All keys of an environment are on one primary, in a cluster too.
    pub fn browse(&self, pattern: String) -> Browse {
        Browse::new(self.client.clone(), pattern)
    }

    /// Hands over every key that matches, in no order; one may come twice.
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

    /// How many keys this Redis holds, ours or not; `None` where it will not tell.
    pub async fn size(&self) -> Option<u64> {
        self.client.dbsize().await.ok()
    }

    /// Which of these keys are there.
    pub async fn exist(&self, keys: &[String]) -> Result<Vec<bool>, StoreError> {
        self.each(keys, async |pipeline, key| pipeline.exists(key).await)
            .await
    }

    /// The bytes that keys take in memory, by MEMORY USAGE; `None` for what is not there any more.
    pub async fn memory(&self, keys: &[String]) -> Result<Vec<Option<u64>>, StoreError> {
        self.each(keys, async |pipeline, key| {
            pipeline.memory_usage(key, None).await
        })
        .await
    }

    /// One command for each key, in few round trips.
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
