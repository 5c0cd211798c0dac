//! What `check` asks of Redis. It writes one key of its own, and deletes it.

use fred::prelude::*;

use super::{Direct, KEYS_PER_PAGE};
use crate::check::{Check, LIMIT, dns};
use crate::config::{RedisConfig, Topology, WriteConfig};
use crate::keys::Keys;
use crate::store::layout::{self, Layouts};
use crate::store::monitor::harmless;
use crate::store::script::Script;
use crate::store::{NEWER_LAYOUT_ADVICE, StoreError};

/// Looks at the way to Redis, and at whether it does what the work needs. Takes no longer than
/// twice [`LIMIT`].
pub async fn check(redis: &RedisConfig, writes: &WriteConfig, keys: &Keys) -> Vec<Check> {
    let (mut checks, link) = tokio::join!(
        resolve(redis),
        tokio::time::timeout(LIMIT, Direct::connect(redis, writes))
    );
    match link {
        Ok(Ok(direct)) => {
            let all = direct.check(redis, writes, keys);
            match tokio::time::timeout(LIMIT, all).await {
                Ok(found) => checks.extend(found),
                Err(_) => checks.push(Check::fail("redis-link", SLOW, NETWORK)),
            }
            direct.close().await;
        }
        Ok(Err(error)) => {
            let text = format!("{error:#}");
            checks.push(Check::fail("redis-link", &text, advice(&text)));
        }
        Err(_) => checks.push(Check::fail("redis-link", SLOW, NETWORK)),
    }
    checks
}

const SLOW: &str = "Redis does not answer in time";
const NETWORK: &str =
    "check REDIS_HOST, REDIS_PORT and REDIS_TLS, and the network between here and Redis";

/// Its name, where it has one.
async fn resolve(redis: &RedisConfig) -> Vec<Check> {
    let (variable, addresses) = match &redis.topology {
        Topology::Standalone(address) => ("REDIS_HOST", std::slice::from_ref(address)),
        Topology::Sentinel { nodes, .. } => ("REDIS_SENTINEL_HOSTS", nodes.as_slice()),
        Topology::Cluster { nodes, .. } => ("REDIS_HOST", nodes.as_slice()),
        Topology::Unix(_) => return Vec::new(),
    };
    let named = addresses.iter().filter(|address| !address.host.is_empty());
    let asked = named.map(|address| dns("redis-dns", variable, &address.host, address.port));
    futures_util::future::join_all(asked).await
}

/// Pages of keys that are looked through at most.
const MAX_PAGES: u32 = 100;
/// What the scripts and commands of the worker need.
const MIN_REDIS_MAJOR: u32 = 6;

impl Direct {
    async fn check(&self, redis: &RedisConfig, writes: &WriteConfig, keys: &Keys) -> Vec<Check> {
        let pong = self.client.ping::<String>(None).await;
        let mut checks = vec![match pong {
            Ok(_) => {
                let tls = if redis.tls.is_some() { ", by TLS" } else { "" };
                let user = redis.login.username.as_deref();
                let user = user.map_or_else(String::new, |user| format!(" as {user}"));
                Check::pass("redis-link", format!("answers{user}{tls}"))
            }
            Err(error) => failed("redis-link", error.into()),
        }];
        let (info, script) = tokio::join!(self.client.info::<String>(None), self.script(keys));
        checks.push(match script {
            Ok(()) => Check::pass("redis-writes", "a script wrote, read and deleted a key"),
            Err(error) => failed("redis-writes", error),
        });
        match info {
            Ok(info) => {
                checks.push(version(field(&info, "redis_version").unwrap_or_default()));
                let policy = field(&info, "maxmemory_policy").unwrap_or_default();
                let limit = field(&info, "maxmemory").unwrap_or_default();
                checks.push(eviction(policy, limit));
            }
            Err(error) => {
                let error = StoreError::from(error);
                checks.push(Check::warn(
                    "redis-version",
                    format!("INFO is refused, so version and eviction are not known: {error}"),
                    "allow +info; docs/operations.md has the rights",
                ));
            }
        }
        checks.push(self.data(keys).await);
        checks.push(self.layout(writes, keys).await);
        checks
    }

    /// A script that does all that the worker's does to a key.
    async fn script(&self, keys: &Keys) -> Result<(), StoreError> {
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

    /// Whether some customers are in a layout that is newer than ours, and whether that matters.
    async fn layout(&self, writes: &WriteConfig, keys: &Keys) -> Check {
        const NAME: &str = "redis-layout";
        let layouts = match layout::look(&self.client, keys).await {
            Ok(layouts) => layouts,
            Err(error) => return Check::pass(NAME, format!("not looked at: {error}")),
        };
        let Layouts { looked_at, newer } = layouts;
        let found =
            format!("{newer} of {looked_at} customers are in the layout of SDK 4.12 and later");
        match newer {
            0 => Check::pass(
                NAME,
                format!("{looked_at} customers looked at, none in a newer layout"),
            ),
            _ if writes.rules.invalidate => {
                Check::pass(NAME, format!("{found}, which INVALIDATE leaves to SDKs"))
            }
            _ => Check::warn(NAME, found, NEWER_LAYOUT_ADVICE),
        }
    }

    /// Whether customers are there by this prefix. Looks at no more than some of the keys.
    async fn data(&self, keys: &Keys) -> Check {
        const NAME: &str = "redis-data";
        let mut pages = self.browse(keys.pattern_of_customers());
        for _ in 0..MAX_PAGES {
            match pages.next().await {
                Ok(Some(page)) if !page.is_empty() => {
                    return Check::pass(NAME, "customers are cached by this prefix");
                }
                Ok(Some(_)) => {}
                Ok(None) => {
                    return Check::warn(
                        NAME,
                        "no customer is cached by this prefix",
                        "right for a new Redis; otherwise ENVIRONMENT_PREFIX or REDIS_DB is not that of the SDK",
                    );
                }
                Err(error) => return Check::pass(NAME, format!("not looked at: {error}")),
            }
        }
        Check::warn(
            NAME,
            format!(
                "no customer among {} keys or so of this Redis",
                MAX_PAGES * KEYS_PER_PAGE
            ),
            "check that ENVIRONMENT_PREFIX and REDIS_DB are those of the SDK",
        )
    }
}

fn failed(name: &'static str, error: StoreError) -> Check {
    let text = error.to_string();
    Check::fail(name, &text, advice(&text))
}

/// What to do about what Redis said.
fn advice(text: &str) -> &'static str {
    let says = |part: &str| text.contains(part);
    if says("WRONGPASS") || says("NOAUTH") || says("AUTH") || says("REDIS_PASSWORD") {
        "check REDIS_PASSWORD, and REDIS_USER where Redis has ACL users"
    } else if says("DB index") || says("SELECT is not allowed") {
        "set REDIS_DB to a database that this Redis has: 0 to 15 by default, only 0 in a cluster"
    } else if says("EVAL") {
        "grant +eval and +evalsha, or use a Redis that has scripts; docs/redis.md says more"
    } else if says("NOPERM") {
        "give the user the rights in docs/operations.md"
    } else if says("READONLY") {
        "write the host of the primary in REDIS_HOST: this one is a replica"
    } else if says("OOM") {
        "raise maxmemory of Redis, or lower KEYS_TTL_IN_SECS"
    } else if says("MISCONF") {
        "see to the disk of Redis: it cannot save"
    } else if says("certificate") {
        "give the authority that signed it in SSL_CERT_FILE"
    } else {
        NETWORK
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

fn version(version: &str) -> Check {
    let major = version.split('.').next();
    let major = major.and_then(|it| it.parse::<u32>().ok());
    match major {
        Some(major) if major < MIN_REDIS_MAJOR => Check::warn(
            "redis-version",
            version,
            format!(
                "use Redis {MIN_REDIS_MAJOR} or newer, or Valkey: it has not been tried with older ones"
            ),
        ),
        Some(_) => Check::pass("redis-version", version),
        None => Check::warn("redis-version", "not known", "use Redis or Valkey"),
    }
}

fn eviction(policy: &str, limit: &str) -> Check {
    const NAME: &str = "redis-eviction";
    if policy.starts_with("allkeys") {
        return Check::warn(
            NAME,
            format!("{policy}: may evict a value without its timestamp, or a tombstone"),
            "set maxmemory-policy to volatile-ttl or noeviction",
        );
    }
    let policy = if policy.is_empty() {
        "not known"
    } else {
        policy
    };
    match limit {
        "0" | "" => Check::pass(NAME, format!("{policy}, without a limit of memory")),
        limit => Check::pass(NAME, format!("{policy}, at {limit} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;

    #[test]
    fn versions_and_policies_are_judged() {
        for (found, status) in [
            (version("7.0.15"), Status::Pass),
            (version("5.0.14"), Status::Warn),
            (version(""), Status::Warn),
            (eviction("volatile-ttl", "1000"), Status::Pass),
            (eviction("noeviction", "0"), Status::Pass),
            (eviction("allkeys-lru", "1000"), Status::Warn),
        ] {
            assert_eq!(found.status, status, "{found:?}");
        }
        let info = "# Memory\r\nmaxmemory:12\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert_eq!(field(info, "maxmemory"), Some("12"));
        assert_eq!(field(info, "maxmemory_policy"), Some("allkeys-lru"));
    }
}
