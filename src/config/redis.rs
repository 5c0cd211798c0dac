//! Reads the variables of Redis: address, login and TLS.

mod address;
mod login;
mod tls;
mod topology;
mod url;

pub use address::Address;
pub use login::{IamConfig, Login, Password};
pub use tls::RedisTls;
pub use topology::Topology;

use std::collections::BTreeMap;
use std::fmt;

use super::read::{Reader, text};
use super::variables::Raw;

#[derive(Debug, Clone)]
pub struct RedisConfig {
    pub topology: Topology,
    pub db: u8,
    pub login: Login,
    pub tls: Option<RedisTls>,
    /// Replicas that must confirm a batch before it is acknowledged; 0: the worker does not wait.
    pub wait_replicas: u8,
}

pub fn read(
    read: &mut Reader,
    raw: &mut Raw,
    effective: &mut BTreeMap<&'static str, String>,
    warnings: &mut Vec<String>,
) -> RedisConfig {
    let prefix = text(raw.environment_prefix.clone())
        .or_else(|| text(raw.redis_environment_prefix.clone()))
        .unwrap_or_else(|| "production".to_owned());
    let has_url = [&raw.redis_url, &raw.redis_url_file]
        .into_iter()
        .any(|value| text(value.clone()).is_some());
    let url = url::read(read, raw);
    let topology = if has_url && url.is_none() {
        // The URL's error is already reported; the settings that it would have held are unknown.
        topology::absent()
    } else {
        topology::read(read, raw, url.as_ref(), &prefix)
    };
    let db = database(read, raw, url.as_ref());
    if db > 0
        && let Topology::Cluster { .. } = topology
    {
        let why = if url.is_some() {
            "REDIS_URL"
        } else if raw.redis_mode.is_some() {
            "REDIS_MODE"
        } else {
            "REDIS_HOST"
        };
        read.problem(
            "REDIS_DB",
            format!("is {db}, but {why} is of a cluster, which has no databases: unset REDIS_DB"),
        );
    }
    let tls = tls::read(read, raw, url.as_ref(), &topology);
    let login = login::read(read, raw, url.as_ref(), &topology, tls.is_some());
    // They may have come from a URL.
    effective.insert("REDIS_DB", db.to_string());
    effective.insert("REDIS_TLS", u8::from(tls.is_some()).to_string());
    if tls.as_ref().is_some_and(|tls| tls.insecure) {
        warnings.push("REDIS_TLS_INSECURE_SKIP_VERIFY=1: the certificate of Redis is not verified, so anyone on the network path can read and change the traffic; set REDIS_TLS_CA_FILE instead".into());
    }
    RedisConfig {
        topology,
        db,
        login,
        tls,
        wait_replicas: read.number(
            "REDIS_WAIT_REPLICAS",
            raw.redis_wait_replicas.take(),
            0,
            0..=100,
        ),
    }
}

fn database(read: &mut Reader, raw: &mut Raw, url: Option<&url::RedisUrlSource>) -> u8 {
    let of_url = url.and_then(|url| url.parsed.db.clone());
    let own = text(raw.redis_db.take());
    let db = read.optional_number("REDIS_DB", own, 0..=255);
    let Some(of_url) = of_url else {
        return db.unwrap_or(0);
    };
    let Ok(of_url) = of_url.parse() else {
        read.problem(
            "REDIS_URL",
            "does not end in a database number: write 0 to 255 after the last /",
        );
        return 0;
    };
    if db.is_some_and(|db| db != of_url) {
        read.problem(
            "REDIS_DB",
            format!("is not {of_url}, which REDIS_URL ends in: set it in one of them"),
        );
    }
    of_url
}

/// Writes the address for the log line at start, without secrets.
impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.topology {
            Topology::Standalone(address) => write!(f, "{address}/{}", self.db),
            Topology::Unix(path) => write!(f, "{} database {}", path.display(), self.db),
            Topology::Sentinel { nodes, master, .. } => {
                let nodes = address::list(nodes);
                write!(f, "{master}/{} by sentinels {nodes}", self.db)
            }
            Topology::Cluster { nodes, .. } => write!(f, "cluster {}", address::list(nodes)),
        }
    }
}

#[cfg(test)]
mod tests;
