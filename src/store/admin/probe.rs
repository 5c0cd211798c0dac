//! Reads facts about Redis for the command `check`. It writes one key of its own and deletes it.

use fred::prelude::*;

use super::{AdminClient, KEYS_PER_PAGE};
use crate::keys::Keys;
use crate::store::StoreError;
use crate::store::layout::{self, Layouts};
use crate::store::monitor::harmless;
use crate::store::script::Script;

/// The facts about Redis.
#[derive(Debug)]
pub struct RedisFacts {
    pub ping: Result<(), StoreError>,
    /// The result of a script that writes and deletes a key as the worker's script does.
    pub script: Result<(), StoreError>,
    pub info: Result<RedisInfo, StoreError>,
    pub customers: Result<CachedCustomers, StoreError>,
    pub layouts: Result<Layouts, StoreError>,
}

/// Fields of INFO; empty where Redis does not return them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RedisInfo {
    pub version: String,
    pub maxmemory: String,
    pub maxmemory_policy: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CachedCustomers {
    Found,
    /// No customer among all keys.
    None,
    /// No customer among this many keys; there are more.
    NoneAmong(u32),
}

/// Maximum pages of keys to scan.
const MAX_PAGES: u32 = 100;

impl AdminClient {
    pub async fn probe(&self, keys: &Keys) -> RedisFacts {
        let ping = self.client.ping::<String>(None).await;
        let (info, script) = tokio::join!(self.client.info::<String>(None), self.try_script(keys));
        RedisFacts {
            ping: ping.map(drop).map_err(StoreError::from),
            script,
            info: info
                .map(|info| RedisInfo::read(&info))
                .map_err(StoreError::from),
            customers: self.look_for_customers(keys).await,
            layouts: layout::look(&self.client, keys).await,
        }
    }

    async fn try_script(&self, keys: &Keys) -> Result<(), StoreError> {
        let token = format!("{:016x}", fastrand::u64(..));
        let key = keys.scratch(&token);
        let words = || (vec![key.as_str().into()], vec![token.as_str().into()]);
        let script = Script::new(include_str!("check.lua"));
        let found: String = script.run(&self.client, words).await?;
        if found != token {
            return Err(StoreError::protocol());
        }
        // The worker's own script, on a key like those of customers.
        self.writer.probe(&self.client, &harmless(keys)).await
    }

    async fn look_for_customers(&self, keys: &Keys) -> Result<CachedCustomers, StoreError> {
        let mut pages = self.browse(keys.pattern_of_customers());
        for _ in 0..MAX_PAGES {
            match pages.next().await? {
                Some(page) if !page.is_empty() => return Ok(CachedCustomers::Found),
                Some(_) => {}
                None => return Ok(CachedCustomers::None),
            }
        }
        Ok(CachedCustomers::NoneAmong(MAX_PAGES * KEYS_PER_PAGE))
    }
}

impl RedisInfo {
    fn read(info: &str) -> Self {
        let field = |name: &str| {
            let mut lines = info.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().trim().to_owned()
        };
        Self {
            version: field("redis_version"),
            maxmemory: field("maxmemory"),
            maxmemory_policy: field("maxmemory_policy"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_info_are_told_from_those_that_begin_alike() {
        let info = "# Memory\r\nmaxmemory:12\r\nmaxmemory_policy:allkeys-lru\r\n";
        let read = RedisInfo::read(info);
        assert_eq!((read.maxmemory.as_str(), read.version.as_str()), ("12", ""));
        assert_eq!(read.maxmemory_policy, "allkeys-lru");
    }
}
