//! Decides how Redis is reached (standalone, sentinel or cluster) and reports contradictions.

use std::path::PathBuf;

use super::Address;
use super::address::list;
use super::login::{self, Login};
use super::url::{Kind, RedisUrlSource};
use crate::config::foreign::is_injected;
use crate::config::read::{Reader, text};
use crate::config::variables::Raw;

/// How the worker finds the primary.
#[derive(Debug, Clone)]
pub enum Topology {
    Standalone(Address),
    Unix(PathBuf),
    Sentinel {
        nodes: Vec<Address>,
        master: String,
        /// The login for the sentinels.
        login: Login,
    },
    Cluster {
        /// Some of the nodes; the client discovers the others.
        nodes: Vec<Address>,
        /// The prefix, whose hash tag decides the slot of all keys.
        prefix: String,
    },
}

impl Topology {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Standalone(_) => "standalone",
            Self::Unix(_) => "unix",
            Self::Sentinel { .. } => "sentinel",
            Self::Cluster { .. } => "cluster",
        }
    }
}

const MODES: [&str; 3] = ["standalone", "sentinel", "cluster"];

pub fn read(
    read: &mut Reader,
    raw: &mut Raw,
    url: Option<&RedisUrlSource>,
    prefix: &str,
) -> Topology {
    let mode = read.one_of("REDIS_MODE", raw.redis_mode.clone(), &MODES);
    let mode = mode.map(|place| MODES[place]);
    let host = text(raw.redis_host.take());
    let port = text(raw.redis_port.take());
    let (linked, port) = injected(host.as_deref(), port, read);
    let own_port = port.clone().filter(|_| linked.is_none());
    let port: u16 = read.number("REDIS_PORT", port, 6379, 1..=65_535);
    let sentinels = text(raw.redis_sentinel_hosts.take());
    let master = text(raw.redis_sentinel_master.take());
    let others = [("REDIS_HOST", &host), ("REDIS_SENTINEL_HOSTS", &sentinels)];

    let (kind, nodes, said_by) = match (url, &sentinels) {
        (Some(url), _) => {
            beside_url(read, url, &others, own_port.map(|_| port));
            (url.parsed.kind, url.parsed.nodes.clone(), "REDIS_URL")
        }
        (None, Some(sentinels)) => {
            if host.is_some() {
                read.problem(
                    "REDIS_SENTINEL_HOSTS",
                    "is set, and so is REDIS_HOST: the sentinels return the address of Redis, so set one of them",
                );
            }
            let nodes = addresses(read, "REDIS_SENTINEL_HOSTS", sentinels, 26_379);
            (Kind::Sentinel, nodes, "REDIS_SENTINEL_HOSTS")
        }
        (None, None) => {
            let Some(host) = host.or(linked) else {
                if mode == Some("sentinel") {
                    read.problem(
                        "REDIS_MODE",
                        "is sentinel, but REDIS_SENTINEL_HOSTS is not set: set it, for example REDIS_SENTINEL_HOSTS=a:26379,b:26379",
                    );
                } else {
                    read.required("REDIS_HOST", None);
                }
                return absent();
            };
            let nodes = addresses(read, "REDIS_HOST", &host, port);
            let names_a_port = nodes.first().is_some_and(|node| node.port != port);
            if nodes.len() == 1 && names_a_port && own_port.is_some() {
                read.problem(
                    "REDIS_PORT",
                    format!(
                        "is {port}, but REDIS_HOST is \"{host}\": write the port in one of them"
                    ),
                );
            }
            let kind = if nodes.len() > 1 {
                Kind::Cluster
            } else {
                Kind::Standalone
            };
            (kind, nodes, "REDIS_HOST")
        }
    };
    let kind = with_mode(read, mode, kind, nodes.len(), said_by);
    if kind != Kind::Sentinel {
        login::no_sentinels(read, raw, master.as_deref());
    }
    match kind {
        Kind::Unix => Topology::Unix(url.map(|url| &*url.parsed.path).unwrap_or_default().into()),
        Kind::Sentinel => Topology::Sentinel {
            nodes,
            master: named(read, url, master, said_by),
            login: login::of_sentinels(read, raw, url),
        },
        Kind::Cluster => {
            check_tag(read, prefix, said_by);
            Topology::Cluster {
                nodes,
                prefix: prefix.to_owned(),
            }
        }
        Kind::Standalone => nodes
            .into_iter()
            .next()
            .map_or_else(absent, Topology::Standalone),
    }
}

/// Returns the host and port that `REDIS_PORT` means. Kubernetes sets `REDIS_PORT=tcp://host:port` for a service
/// named redis. The port applies only to that service, and not to another host.
fn injected(
    host: Option<&str>,
    port: Option<String>,
    read: &mut Reader,
) -> (Option<String>, Option<String>) {
    let value = port.as_deref().unwrap_or_default();
    let is_injected = is_injected("REDIS_PORT", value);
    let Some((linked, of_service)) = value
        .split_once("://")
        .and_then(|(_, address)| address.rsplit_once(':'))
        .filter(|_| is_injected)
    else {
        return (None, port);
    };
    let is_it = |host: &str| {
        let names: Vec<&str> = host.split('.').collect();
        host == linked
            || matches!(
                names[..],
                ["redis"] | ["redis", _] | ["redis", _, "svc", ..]
            )
    };
    let linked = linked.to_owned();
    match host {
        Some(host) if !is_it(host) => {
            read.warn("REDIS_PORT is what Kubernetes sets for a service named redis, and REDIS_HOST is another host: port 6379 is used unless REDIS_HOST names one; set enableServiceLinks to false, or REDIS_PORT to a number");
            (Some(linked), None)
        }
        _ => (Some(linked), Some(of_service.to_owned())),
    }
}

/// Replaces an address that is missing or invalid.
pub fn absent() -> Topology {
    Topology::Standalone(Address {
        host: String::new(),
        port: 6379,
    })
}

fn addresses(read: &mut Reader, name: &'static str, value: &str, port: u16) -> Vec<Address> {
    match Address::parse_list(value, port) {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => {
            read.problem(name, "has no host: write host:port");
            Vec::new()
        }
        // Not shown: a connection string holds a password.
        Err(_) if value.contains(['@', '=', ';']) => {
            read.problem(
                name,
                "holds more than hosts: write them alone, with the password in REDIS_PASSWORD, or set REDIS_URL",
            );
            Vec::new()
        }
        Err(_) => {
            let example = if name == "REDIS_HOST" {
                "redis or redis:6379"
            } else {
                "sentinel:26379"
            };
            read.problem(
                name,
                format!("has no host: write the host alone, for example {example}"),
            );
            Vec::new()
        }
    }
}

/// Reports variables that differ from `REDIS_URL`. Equal values are accepted.
fn beside_url(
    read: &mut Reader,
    url: &RedisUrlSource,
    others: &[(&'static str, &Option<String>)],
    port: Option<u16>,
) {
    let nodes = &url.parsed.nodes;
    for (name, value) in others {
        let same = |value: &str| {
            let hosts: Vec<&str> = value.split(',').map(str::trim).collect();
            list(nodes) == value || hosts.iter().eq(nodes.iter().map(|it| &it.host))
        };
        if value.as_deref().is_some_and(|value| !same(value)) {
            read.problem(
                name,
                "is set, and REDIS_URL has a different value: set one of them",
            );
        }
    }
    if let (Some(port), [node]) = (port, &nodes[..])
        && port != node.port
    {
        read.problem(
            "REDIS_PORT",
            format!(
                "is {port}, but the port of REDIS_URL is {}: set it in one of them",
                node.port
            ),
        );
    }
}

fn with_mode(
    read: &mut Reader,
    mode: Option<&'static str>,
    kind: Kind,
    nodes: usize,
    said_by: &'static str,
) -> Kind {
    let told = match kind {
        Kind::Standalone | Kind::Unix => "standalone",
        Kind::Sentinel => "sentinel",
        Kind::Cluster => "cluster",
    };
    match mode {
        None => kind,
        Some(mode) if mode == told => kind,
        // A single address may be a standalone Redis or a node of a cluster.
        Some("cluster") if kind == Kind::Standalone => Kind::Cluster,
        Some(mode) => {
            let is = match said_by {
                "REDIS_URL" => format!("REDIS_URL means {told}"),
                "REDIS_HOST" if nodes > 1 => "REDIS_HOST names several hosts".to_owned(),
                "REDIS_HOST" => "REDIS_SENTINEL_HOSTS is not set, and REDIS_HOST is".to_owned(),
                name => format!("{name} is set"),
            };
            read.problem(
                "REDIS_MODE",
                format!("is {mode}, but {is}: change one of them"),
            );
            kind
        }
    }
}

fn named(
    read: &mut Reader,
    url: Option<&RedisUrlSource>,
    master: Option<String>,
    said_by: &'static str,
) -> String {
    let of_url = url.and_then(|url| url.parsed.master.clone());
    if let (Some(one), Some(two)) = (&of_url, &master)
        && one != two
    {
        read.problem(
            "REDIS_SENTINEL_MASTER",
            "is not the sentinelServiceName of REDIS_URL: set one of them",
        );
    }
    let name = master.or(of_url);
    if name.is_none() {
        read.problem(
            "REDIS_SENTINEL_MASTER",
            format!("is not set, but {said_by} is of sentinels: set it, for example REDIS_SENTINEL_MASTER=mymaster"),
        );
    }
    name.unwrap_or_default()
}

/// Reports a prefix without a hash tag: all keys of an environment are read and written together, so they must
/// share a slot.
fn check_tag(read: &mut Reader, prefix: &str, said_by: &str) {
    let tag = prefix
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag);
    if tag.is_none_or(str::is_empty) {
        read.problem(
            "ENVIRONMENT_PREFIX",
            format!(
                "is \"{prefix}\", but {said_by} is of a cluster, where all keys of an environment must share one slot: write a hash tag, for example ENVIRONMENT_PREFIX={{{}}}, here and in the SDKs",
                prefix.replace(['{', '}'], "")
            ),
        );
    }
}
