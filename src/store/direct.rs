//! Redis as an operator's command uses it: connects once, says why if it cannot, waits for nothing.

mod check;

pub use check::check;

use fred::prelude::*;
use fred::types::Key;
use prometheus_client::metrics::counter::Counter;

use super::link::Link;
use super::replicas::Replicas;
use super::write::Writer;
use super::{Applied, StoreError};
use crate::config::{RedisConfig, WriteConfig};
use crate::keys::Keys;
use crate::plan::Step;

/// A connection without a gate or a monitor.
#[derive(Clone)]
pub struct Direct {
    client: Client,
    writer: Writer,
}

/// Keys of one call: Redis serves nobody else while it runs.
const CHUNK: usize = 500;

/// Seconds that a key lives on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    Missing,
    Forever,
    Secs(u64),
}

impl Direct {
    /// Connects, or says why it cannot.
    pub async fn connect(redis: &RedisConfig, writes: &WriteConfig) -> anyhow::Result<Self> {
        let link = Link::once(redis).await?;
        let client = link.client()?;
        let marker = Keys::new(&writes.prefix).marker();
        let replicas = Replicas::new(redis.wait_replicas, marker, Counter::default());
        Ok(Self {
            writer: Writer::new(link, replicas, writes),
            client,
        })
    }

    /// The values of keys, in their order; `None` for a key that is not there, or holds no string.
    pub async fn values(&self, keys: &[String]) -> Result<Vec<Option<String>>, StoreError> {
        let mut values = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let chunk: Vec<Key> = chunk.iter().map(|key| key.as_str().into()).collect();
            values.extend(self.client.mget::<Vec<Option<String>>, _>(chunk).await?);
        }
        Ok(values)
    }

    /// How long keys live on, in their order.
    pub async fn ttls(&self, keys: &[String]) -> Result<Vec<Ttl>, StoreError> {
        let mut ttls = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let pipeline = self.client.pipeline();
            for key in chunk {
                let () = pipeline.ttl(key.as_str()).await?;
            }
            let answers: Vec<i64> = pipeline.all().await?;
            ttls.extend(answers.into_iter().map(|secs| match secs {
                -2 => Ttl::Missing,
                secs => u64::try_from(secs).map_or(Ttl::Forever, Ttl::Secs),
            }));
        }
        Ok(ttls)
    }

    /// Compares and writes, as the worker does.
    pub async fn apply(&self, steps: &[&Step]) -> Result<Vec<Applied>, StoreError> {
        self.writer.apply(steps, |_| {}).await
    }

    /// Closes the connection.
    pub async fn close(&self) {
        // Whatever is wrong with it, it is not needed any more.
        let _ = self.client.quit().await;
    }
}
