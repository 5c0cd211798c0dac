//! Judges what answering questions needs beyond Redis and the Edge API: the port, the keys, and whether Redis tells of
//! changes.

use std::net::{Ipv6Addr, TcpListener};
use std::time::Duration;

use entitlement_sync::config::{ReadConfig, RedisConfig};
use entitlement_sync::keys::{Keys, Owner};
use entitlement_sync::store::{Tracked, Tracking};

use super::finding::{Check, PROBE_TIMEOUT};

/// Takes no longer than [`PROBE_TIMEOUT`].
pub async fn check(reads: &ReadConfig, redis: &RedisConfig, keys: &Keys) -> Vec<Check> {
    let mut checks = vec![port(reads.port), readers(reads)];
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
    "allow +hello +client|tracking +mget to the user of Redis; docs/redis.md has the permissions";

async fn connected(tracked: &Tracked) {
    while !tracked.is_up() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn away(tracked: &Tracked) -> Check {
    let why = match tracked.tracking() {
        Tracking::Away(why) => why,
        Tracking::On { .. } | Tracking::Refused(_) => "Redis does not answer in time".into(),
    };
    Check::fail(TRACKING, why, PERMISSIONS)
}

/// Reads a customer that cannot be there, as a question does.
async fn tracking(tracked: &Tracked, reads: &ReadConfig) -> Check {
    let nobody = Owner {
        customer: "entitlement-sync-check",
        resource: None,
    };
    if let Err(error) = tracked.read(nobody).await {
        return Check::fail(TRACKING, error.to_string(), PERMISSIONS);
    }
    match tracked.tracking() {
        Tracking::On { .. } => Check::pass(TRACKING, "Redis tells of changes"),
        Tracking::Refused(why) | Tracking::Away(why) => Check::warn(
            TRACKING,
            format!(
                "Redis does not tell of changes, so each answer is up to {} ms old: {why}",
                reads.fresh.as_millis()
            ),
            PERMISSIONS,
        ),
    }
}

/// Whether the port can be had. A process that answers already has it.
fn port(port: u16) -> Check {
    const NAME: &str = "read-port";
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))
        .or_else(|_| TcpListener::bind(("0.0.0.0", port)))
    {
        Ok(_) => Check::pass(NAME, format!("port {port} is free")),
        Err(error) => Check::warn(
            NAME,
            format!("port {port} cannot be had: {error}"),
            "right where the process runs already; otherwise set READ_PORT",
        ),
    }
}

fn readers(reads: &ReadConfig) -> Check {
    const NAME: &str = "read-keys";
    match reads.keys.keys.len() {
        0 => Check::fail(
            NAME,
            "there is no key, so every question is refused",
            "set READ_API_KEYS or SERVER_API_KEY",
        ),
        1 => Check::pass(NAME, "1 key opens the read API"),
        keys => Check::pass(NAME, format!("{keys} keys open the read API")),
    }
}
