//! Looking through keys by SCAN, so gently that Redis goes on serving others meanwhile.

use std::pin::Pin;
use std::time::{Duration, Instant};

use bytes_utils::Str;
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
    pages: Pages,
    since: Instant,
}

enum Pages {
    /// Of one server, from this cursor on. Asked for one by one: the stream of the client hides
    /// what Redis says when it refuses.
    Server {
        client: Client,
        pattern: Str,
        cursor: Option<Str>,
    },
    /// Of every primary of a cluster.
    Cluster {
        stream: Pin<Box<dyn Stream<Item = Result<ScanResult, Error>> + Send>>,
        last: Option<ScanResult>,
    },
}

impl Browse {
    /// The keys of the next page, often none; `None` after the last page. Between two pages there
    /// is a pause as long as what was done since the last one, so that Redis works for us half of
    /// the time at most.
    pub async fn next(&mut self) -> Result<Option<Vec<String>>, StoreError> {
        tokio::time::sleep(self.since.elapsed().min(LONGEST_PAUSE)).await;
        self.since = Instant::now();
        let page = tokio::time::timeout(PAGE, self.pages.next()).await;
        let keys = page.map_err(|_| StoreError::timeout())??;
        let text = |key: Key| key.as_str_lossy().into_owned();
        Ok(keys.map(|keys| keys.into_iter().map(text).collect()))
    }
}

impl Pages {
    async fn next(&mut self) -> Result<Option<Vec<Key>>, Error> {
        match self {
            Self::Server {
                client,
                pattern,
                cursor,
            } => {
                let Some(from) = cursor.take() else {
                    return Ok(None);
                };
                let (next, keys): (Str, Vec<Key>) = client
                    .scan_page(from, pattern.clone(), Some(LOOKED_AT), None)
                    .await?;
                *cursor = Some(next).filter(|next| *next != "0");
                Ok(Some(keys))
            }
            Self::Cluster { stream, last } => {
                if let Some(last) = last.take() {
                    // The last page of one primary is not the last of all.
                    last.next();
                }
                let Some(page) = stream.next().await else {
                    return Ok(None);
                };
                let mut page = page?;
                let keys = page.take_results().unwrap_or_default();
                *last = Some(page);
                Ok(Some(keys))
            }
        }
    }
}

impl Direct {
    /// Every key that matches, on every primary.
    pub fn browse(&self, pattern: String) -> Browse {
        let pages = if self.client.is_clustered() {
            let stream = self.client.scan_cluster(pattern, Some(LOOKED_AT), None);
            Pages::Cluster {
                stream: Box::pin(stream),
                last: None,
            }
        } else {
            Pages::Server {
                client: self.client.clone(),
                pattern: pattern.into(),
                cursor: Some("0".into()),
            }
        };
        Browse {
            pages,
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
