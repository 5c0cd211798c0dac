//! Looking through keys by SCAN, so gently that Redis goes on serving others meanwhile.

use std::pin::Pin;
use std::time::{Duration, Instant};

use fred::clients::Pipeline;
use fred::prelude::*;
use fred::types::Key;
use fred::types::scan::{ScanResult, Scanner};
use futures_util::{Stream, StreamExt};

use super::{CHUNK, Direct};
use crate::store::StoreError;

/// Keys that one SCAN looks at, whether they match or not.
pub const LOOKED_AT: u32 = 1_000;
/// A page that has not come by then does not come any more.
const PAGE: Duration = Duration::from_secs(10);
/// The longest pause between two pages.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Pages of keys. SCAN may give a key twice while Redis grows or shrinks its table, and gives every
/// key that is there all the while.
pub struct Browse {
    pages: Pin<Box<dyn Stream<Item = Result<ScanResult, Error>> + Send>>,
    last: Option<ScanResult>,
    since: Instant,
}

impl Browse {
    /// The keys of the next page, often none; `None` after the last page. Between two pages there
    /// is a pause as long as what was done since the last one, so that Redis works for us half of
    /// the time at most.
    pub async fn next(&mut self) -> Result<Option<Vec<String>>, StoreError> {
        if let Some(last) = self.last.take() {
            tokio::time::sleep(self.since.elapsed().min(LONGEST_PAUSE)).await;
            self.since = Instant::now();
            // On a cluster the last page of one primary is not the last of all.
            last.next();
        }
        let page = tokio::time::timeout(PAGE, self.pages.next()).await;
        let Some(page) = page.map_err(|_| StoreError::timeout())? else {
            return Ok(None);
        };
        let mut page = page?;
        let keys = page.take_results().unwrap_or_default();
        self.last = Some(page);
        let text = |key: Key| key.as_str_lossy().into_owned();
        Ok(Some(keys.into_iter().map(text).collect()))
    }
}

impl Direct {
    /// Every key that matches, on every primary.
    pub fn browse(&self, pattern: String) -> Browse {
        let count = Some(LOOKED_AT);
        let is_cluster = self.client.is_clustered();
        Browse {
            pages: if is_cluster {
                Box::pin(self.client.scan_cluster(pattern, count, None))
            } else {
                Box::pin(self.client.scan(pattern, count, None))
            },
            last: None,
            since: Instant::now(),
        }
    }

    /// How many keys Redis holds, ours or not; `None` where no single server knows, or will tell.
    pub async fn size(&self) -> Option<u64> {
        if self.client.is_clustered() {
            return None;
        }
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
        for chunk in keys.chunks(CHUNK) {
            let pipeline = self.client.pipeline();
            for key in chunk {
                command(&pipeline, key).await?;
            }
            answers.extend(pipeline.all::<Vec<T>>().await?);
        }
        Ok(answers)
    }
}
