//! Judges what the read API needs besides Redis and the Edge API: the port, the keys, and change reports of Redis.

use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;

use entitlement_sync::config::{ReadConfig, RedisConfig};
use entitlement_sync::keys::{Keys, Owner};
use entitlement_sync::store::{Tracked, Tracking};

use super::finding::{Check, PROBE_TIMEOUT};

/// Takes no longer than [`PROBE_TIMEOUT`].
pub async fn check(reads: &ReadConfig, redis: Option<&RedisConfig>, keys: &Keys) -> Vec<Check> {
    let mut checks = vec![port(reads.port), readers(reads)];
    let Some(redis) = redis else {
        return checks;
    };
    match Tracked::start(redis, keys.clone(), reads.fresh) {
        Ok(tracked) => {
            let waited = tokio::time::timeout(PROBE_TIMEOUT, connected(&tracked)).await;
            checks.push(match waited {
                Ok(()) => tracking(&tracked, reads).await,
                Err(_) => away(&tracked),
            });
            tracked.close().await;
        }
        Err(error) => checks.push(Check::fail(TRACKING, format!("{error:#}"), NETWORK)),
    }
    checks
}

const TRACKING: &str = "redis-tracking";
const NETWORK: &str =
    "check REDIS_HOST, REDIS_PORT and REDIS_TLS, and the network between here and Redis";
const PERMISSIONS: &str =
    "grant +hello +client|tracking +mget to the Redis user; docs/redis.md lists the permissions";

async fn connected(tracked: &Tracked) {
    while !tracked.is_up() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn away(tracked: &Tracked) -> Check {
    let why = match tracked.tracking() {
        Tracking::Away(why) => why,
        Tracking::On | Tracking::Refused(_) => "Redis does not answer in time".into(),
    };
    Check::fail(TRACKING, why, PERMISSIONS)
}

/// Reads a customer that cannot exist, as the read API would.
async fn tracking(tracked: &Tracked, reads: &ReadConfig) -> Check {
    let no_customer = Owner {
        customer: "entitlement-sync-check",
        resource: None,
    };
    if let Err(error) = tracked.read(no_customer).await {
        return Check::fail(TRACKING, error.to_string(), PERMISSIONS);
    }
    match tracked.tracking() {
        Tracking::On => Check::pass(TRACKING, "Redis reports changes"),
        Tracking::Refused(why) | Tracking::Away(why) => Check::warn(
            TRACKING,
            format!(
                "Redis does not report changes, so each answer is up to {} ms old: {why}",
                reads.fresh.as_millis()
            ),
            PERMISSIONS,
        ),
    }
}

/// Tests whether the port is free. A running process already uses it.
fn port(port: u16) -> Check {
    const NAME: &str = "read-port";
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
    {
        Ok(_) => Check::pass(NAME, format!("port {port} is free")),
        Err(error) => Check::warn(
            NAME,
            format!("cannot bind port {port}: {error}"),
            "expected if the process already runs here; otherwise set READ_PORT",
        ),
    }
}

fn readers(reads: &ReadConfig) -> Check {
    const NAME: &str = "read-keys";
    match reads.keys.keys.len() {
        0 => Check::fail(
            NAME,
            "no key is configured, so the read API rejects every request",
            "set READ_API_KEYS or SERVER_API_KEY",
        ),
        1 => Check::pass(NAME, "1 key opens the read API"),
        keys => Check::pass(NAME, format!("{keys} keys open the read API")),
    }
}
