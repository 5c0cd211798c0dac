//! Judges Redis: the connection, permissions, version, eviction and cached customers.

use entitlement_sync::config::{RedisConfig, Topology, WriteConfig};
use entitlement_sync::keys::Keys;
use entitlement_sync::store::{
    AdminClient, CachedCustomers, Layouts, NEWER_LAYOUT_ADVICE, RedisFacts, RedisInfo, StoreError,
};

use super::finding::{Check, PROBE_TIMEOUT, dns};

/// Takes no longer than twice [`PROBE_TIMEOUT`].
pub async fn check(redis: &RedisConfig, writes: &WriteConfig, keys: &Keys) -> Vec<Check> {
    let (mut checks, connected) = tokio::join!(
        resolve(redis),
        tokio::time::timeout(PROBE_TIMEOUT, AdminClient::connect(redis, writes))
    );
    match connected {
        Ok(Ok(direct)) => {
            match tokio::time::timeout(PROBE_TIMEOUT, direct.probe(keys)).await {
                Ok(facts) => checks.extend(judge(facts, redis, writes)),
                Err(_) => checks.push(Check::fail("redis-link", NO_ANSWER, NETWORK)),
            }
            direct.close().await;
        }
        Ok(Err(error)) => {
            checks.push(failed("redis-link", &format!("{error:#}")));
        }
        Err(_) => checks.push(Check::fail("redis-link", NO_ANSWER, NETWORK)),
    }
    checks
}

const NO_ANSWER: &str = "Redis does not answer in time";
const NETWORK: &str =
    "check REDIS_HOST, REDIS_PORT and REDIS_TLS, and the network between here and Redis";

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

fn judge(facts: RedisFacts, redis: &RedisConfig, writes: &WriteConfig) -> Vec<Check> {
    let mut checks = vec![match facts.ping {
        Ok(()) => {
            let tls = if redis.tls.is_some() { ", by TLS" } else { "" };
            let user = redis.login.username.as_deref();
            let user = user.map_or_else(String::new, |user| format!(" as {user}"));
            Check::pass("redis-link", format!("answers{user}{tls}"))
        }
        Err(error) => failed("redis-link", &error.to_string()),
    }];
    checks.push(match facts.script {
        Ok(()) => Check::pass("redis-writes", "a script wrote, read and deleted a key"),
        Err(error) => failed("redis-writes", &error.to_string()),
    });
    match facts.info {
        Ok(info) => checks.extend([version(&info.version), eviction(&info)]),
        Err(error) => checks.push(Check::warn(
            "redis-version",
            format!("INFO is denied, so the version and the eviction policy are unknown: {error}"),
            "grant +info; docs/operations.md lists the permissions",
        )),
    }
    checks.push(customers(facts.customers));
    checks.push(layout(facts.layouts, writes));
    checks
}

/// Tests whether customers are cached under this prefix.
fn customers(found: Result<CachedCustomers, StoreError>) -> Check {
    const NAME: &str = "redis-data";
    match found {
        Ok(CachedCustomers::Found) => Check::pass(NAME, "customers are cached under this prefix"),
        Ok(CachedCustomers::None) => Check::warn(
            NAME,
            "no customer is cached under this prefix",
            "expected for a new Redis; otherwise ENVIRONMENT_PREFIX or REDIS_DB differs from the SDK's",
        ),
        Ok(CachedCustomers::NoneAmong(keys)) => Check::warn(
            NAME,
            format!("no customer among the first {keys} keys of this Redis"),
            "check that ENVIRONMENT_PREFIX and REDIS_DB equal the SDK's",
        ),
        Err(error) => Check::pass(NAME, format!("not tested: {error}")),
    }
}

/// Tests whether some customers have a newer layout than ours, and whether that matters.
fn layout(layouts: Result<Layouts, StoreError>, writes: &WriteConfig) -> Check {
    const NAME: &str = "redis-layout";
    let Layouts { looked_at, newer } = match layouts {
        Ok(layouts) => layouts,
        Err(error) => return Check::pass(NAME, format!("not tested: {error}")),
    };
    let found = format!("{newer} of {looked_at} customers are in the layout of SDK 4.12 and later");
    match newer {
        0 => Check::pass(
            NAME,
            format!("{looked_at} customers sampled, none in a newer layout"),
        ),
        _ if writes.rules.invalidate => {
            Check::pass(NAME, format!("{found}, which INVALIDATE leaves to SDKs"))
        }
        _ => Check::warn(NAME, found, NEWER_LAYOUT_ADVICE),
    }
}

fn failed(name: &'static str, text: &str) -> Check {
    match advice(text) {
        Some(advice) => Check::fail(name, text, advice),
        None => Check::fail_with_own_advice(name, text),
    }
}

/// Returns advice for an error of Redis; `None` where the text itself says what to do.
fn advice(text: &str) -> Option<&'static str> {
    const OWN: [&str; 4] = [": set ", ": check ", ": grant ", ": remove "];
    if OWN.iter().any(|words| text.contains(words)) {
        return None;
    }
    let says = |part: &str| text.contains(part);
    let is_login = says("WRONGPASS") || says("NOAUTH") || says("AUTH") || says("REDIS_PASSWORD");
    Some(if is_login {
        "check REDIS_PASSWORD, and REDIS_USER if Redis has ACL users"
    } else if says("DB index") || says("SELECT is not allowed") {
        "set REDIS_DB to a database that this Redis has: 0 to 15 by default, only 0 in a cluster"
    } else if says("EVAL") {
        "grant +eval and +evalsha, or use a Redis with scripts; see docs/redis.md"
    } else if says("NOPERM") {
        "grant the user the permissions in docs/operations.md"
    } else if says("READONLY") {
        "set REDIS_HOST to the primary: this server is a replica"
    } else if says("OOM") {
        "raise maxmemory of Redis, or lower KEYS_TTL_IN_SECS"
    } else if says("MISCONF") {
        "check the disk of Redis: it cannot save"
    } else if says("has expired") {
        "renew the certificate of Redis, or correct the clock of this machine"
    } else if says("is not valid yet") {
        "correct the clock of this machine, or wait until the certificate of Redis is valid"
    } else if says("_FILE is \"") {
        "correct the variable, or the file that it names"
    } else if says("TLS:") {
        "check the certificate of Redis, its TLS settings and REDIS_TLS_CA_FILE"
    } else {
        NETWORK
    })
}

/// The oldest Redis version that the worker supports.
const MIN_MAJOR: u32 = 6;

fn version(version: &str) -> Check {
    const NAME: &str = "redis-version";
    let major = version.split('.').next();
    let major = major.and_then(|it| it.parse::<u32>().ok());
    match major {
        Some(major) if major < MIN_MAJOR => Check::warn(
            NAME,
            version,
            format!("use Redis {MIN_MAJOR} or newer, or Valkey: older versions are not tested"),
        ),
        Some(_) => Check::pass(NAME, version),
        None => Check::warn(NAME, "not known", "use Redis or Valkey"),
    }
}

fn eviction(info: &RedisInfo) -> Check {
    const NAME: &str = "redis-eviction";
    let policy = match info.maxmemory_policy.as_str() {
        "" => "not known",
        policy => policy,
    };
    if policy.starts_with("allkeys") {
        return Check::warn(
            NAME,
            format!("{policy}: may evict a value without its timestamp, or a tombstone"),
            "set maxmemory-policy to volatile-ttl or noeviction",
        );
    }
    match info.maxmemory.as_str() {
        "0" | "" => Check::pass(NAME, format!("{policy}, without a limit of memory")),
        limit => Check::pass(NAME, format!("{policy}, at {limit} bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    #[test]
    fn versions_and_policies_are_judged() {
        let eviction = |policy: &str, limit: &str| {
            eviction(&RedisInfo {
                maxmemory: limit.into(),
                maxmemory_policy: policy.into(),
                ..RedisInfo::default()
            })
        };
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
    }

    /// Each error with advice of its own, and others.
    #[test]
    fn advice_fits_the_error_and_contradicts_no_advice_in_its_text() {
        for text in [
            "TLS: no trusted CA signed the certificate of Redis: set REDIS_TLS_CA_FILE",
            "TLS: the certificate of Redis is for another name: set REDIS_TLS_SERVER_NAME, or connect by a name in the certificate",
            "TLS: Redis requires a client certificate: set REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE",
            "TLS: Redis does not trust the CA of our client certificate: check REDIS_TLS_CERT_FILE",
            "TLS: our client certificate has expired: check REDIS_TLS_CERT_FILE",
            "TLS: Redis rejected the TLS handshake: check REDIS_TLS_CERT_FILE and the TLS settings of Redis",
            "this system has no CA certificates to verify Redis against: set REDIS_TLS_CA_FILE",
            "Redis does not know a command that the worker's script calls: remove rename-command of GET, MGET, SET and DEL",
            "NOPERM this Redis user may not run scripts; the worker needs EVAL to compare and write in one step: grant +eval and +evalsha",
            "MOVED: the keys are on another node of a cluster: set REDIS_MODE=cluster",
            "no sentinel knows a primary named \"main\": check REDIS_SENTINEL_MASTER",
        ] {
            assert_eq!(advice(text), None, "{text}");
            let check = failed("redis-link", text);
            assert_eq!((check.status, check.advice), (Status::Fail, None), "{text}");
        }
        for (text, part) in [
            ("TLS: the certificate of Redis has expired", "renew"),
            ("TLS: the certificate of Redis is not valid yet", "clock"),
            (
                "TLS: the certificate of Redis is not valid",
                "REDIS_TLS_CA_FILE",
            ),
            (
                "REDIS_TLS_CA_FILE is \"ca.pem\": it contains no certificate",
                "file",
            ),
            ("not reachable: Connection refused", "REDIS_HOST"),
            ("NOAUTH Authentication required.", "REDIS_PASSWORD"),
            (
                "NOPERM this user has no permissions to run the 'set' command",
                "docs/operations.md",
            ),
            (
                "READONLY You can't write against a read only replica.",
                "primary",
            ),
        ] {
            let advice = advice(text).unwrap_or_default();
            assert!(advice.contains(part), "{text}: {advice}");
            assert!(!advice.contains("SSL_CERT_FILE"), "{text}: {advice}");
        }
    }
}
