//! Parses `REDIS_URL`, in the forms of redis-cli and of fred.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::Address;
use crate::config::read::Reader;
use crate::config::secret_file::{self, SecretFile};
use crate::config::tidy;
use crate::config::variables::Raw;

/// The URL, and the file it was read from.
pub struct RedisUrlSource {
    pub parsed: RedisUrl,
    pub file: Option<SecretFile>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Standalone,
    Unix,
    Sentinel,
    Cluster,
}

/// The parts of a URL, not yet checked against the other variables.
#[derive(Debug, Clone)]
pub struct RedisUrl {
    pub kind: Kind,
    pub tls: bool,
    /// Addresses of Redis or of the sentinels; empty for a socket.
    pub nodes: Vec<Address>,
    /// The path of a socket.
    pub path: String,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    pub db: Option<String>,
    pub master: Option<String>,
    pub sentinel_username: Option<String>,
    pub sentinel_password: Option<SecretString>,
}

pub fn read(read: &mut Reader, raw: &mut Raw) -> Option<RedisUrlSource> {
    let given = secret_file::given(
        read,
        ("REDIS_URL", raw.redis_url.take()),
        ("REDIS_URL_FILE", raw.redis_url_file.take()),
    )?;
    match RedisUrl::parse(given.secret.expose_secret()) {
        Ok(parsed) => {
            // Each password in it is a secret of its own.
            for secret in [&parsed.password, &parsed.sentinel_password] {
                read.secret(secret.as_ref().map(|it| it.expose_secret().to_owned()));
            }
            Some(RedisUrlSource {
                parsed,
                file: given.file,
            })
        }
        Err(problem) => {
            read.problem("REDIS_URL", problem);
            None
        }
    }
}

impl RedisUrl {
    /// Parses a URL, or returns an error that does not show it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const SCHEMES: &str = "is not a Redis URL: write redis://, rediss://, unix:///, redis-sentinel://, rediss-sentinel://, redis-cluster:// or rediss-cluster://";
        let text = text.trim();
        if text.starts_with(tidy::is_quote) || text.ends_with(tidy::is_quote) {
            return Err(tidy::IN_QUOTES);
        }
        if let Some(problem) = unescaped(text) {
            return Err(problem);
        }
        let url = Url::parse(text).map_err(|_| SCHEMES)?;
        let scheme = url.scheme().replace("valkey", "redis");
        let (kind, tls) = match scheme.as_str() {
            "redis" => (Kind::Standalone, false),
            // Covers valkeys as well.
            "rediss" => (Kind::Standalone, true),
            "unix" | "redis+unix" => (Kind::Unix, false),
            "redis-sentinel" => (Kind::Sentinel, false),
            "rediss-sentinel" => (Kind::Sentinel, true),
            "redis-cluster" => (Kind::Cluster, false),
            "rediss-cluster" => (Kind::Cluster, true),
            _ => return Err(SCHEMES),
        };
        let mut this = Self {
            kind,
            tls,
            nodes: Vec::new(),
            path: String::new(),
            username: some(decode(url.username())?),
            password: url.password().map(decode).transpose()?.map(Into::into),
            db: None,
            master: None,
            sentinel_username: None,
            sentinel_password: None,
        };
        let secrets = [this.password.as_ref().map(ExposeSecret::expose_secret)];
        let login = secrets
            .into_iter()
            .flatten()
            .chain(this.username.as_deref());
        if login.into_iter().any(tidy::has_break) {
            return Err(
                "holds a line break (%0A or %0D) in its user or password: write it without",
            );
        }
        if this.username.is_some() && this.password.is_none() {
            return Err("has a user and no password: write user:password@, or :password@");
        }
        let port = if kind == Kind::Sentinel { 26_379 } else { 6379 };
        match kind {
            Kind::Unix => this.path = decode(url.path())?,
            _ => {
                let host = url.host_str().filter(|host| !host.is_empty());
                let first = format!(
                    "{}:{}",
                    host.ok_or("has no host")?,
                    url.port().unwrap_or(port)
                );
                this.nodes
                    .push(Address::parse(&first, port).ok_or("has no host")?);
                this.db = some(url.path().trim_start_matches('/').to_owned());
            }
        }
        for (name, value) in url.query_pairs() {
            match (&*name, kind) {
                ("node", Kind::Sentinel | Kind::Cluster) => {
                    let node = Address::parse(&value, port);
                    this.nodes
                        .push(node.ok_or("has a node that is not host:port")?);
                }
                ("sentinelServiceName", Kind::Sentinel) => this.master = some(value.into_owned()),
                ("sentinelUsername", Kind::Sentinel) => {
                    this.sentinel_username = some(value.into_owned());
                }
                ("sentinelPassword", Kind::Sentinel) => {
                    this.sentinel_password = some(value.into_owned()).map(Into::into);
                }
                ("db", Kind::Unix) => this.db = some(value.into_owned()),
                _ => {
                    return Err(
                        "has a parameter that has no effect for this scheme: see docs/redis.md",
                    );
                }
            }
        }
        Ok(this)
    }
}

/// Rejects a password with an unescaped `#`, `/` or `?`, half of which would be parsed as a host, a port or a path.
fn unescaped(text: &str) -> Option<&'static str> {
    const ESCAPE: &str = "has a password, or something else, that holds #, / or ?: write %23 for #, %2F for / and %3F for ?";
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    if rest.contains('#') {
        return Some(ESCAPE);
    }
    let is_socket = rest.starts_with('/');
    let (before, _) = rest.rsplit_once('@')?;
    let at = before.find(['/', '?']).filter(|_| !is_socket)?;
    // A password of the sentinels may contain an unescaped @.
    let is_parameter = before[at..].starts_with('?') && before[at..].contains('=');
    (!is_parameter).then_some(ESCAPE)
}

fn decode(text: &str) -> Result<String, &'static str> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Cow::into_owned)
        .map_err(|_| "is not UTF-8 once decoded")
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn nodes(url: &RedisUrl) -> String {
        super::super::address::list(&url.nodes)
    }

    #[test]
    fn every_scheme_is_understood() {
        for (text, kind, tls, where_) in [
            ("redis://host", Kind::Standalone, false, "host:6379"),
            ("valkey://host:1/2", Kind::Standalone, false, "host:1"),
            ("rediss://[::1]:7", Kind::Standalone, true, "[::1]:7"),
            ("valkeys://host", Kind::Standalone, true, "host:6379"),
            (
                "redis-cluster://a:1?node=b:2&node=c:3",
                Kind::Cluster,
                false,
                "a:1,b:2,c:3",
            ),
            ("rediss-cluster://a", Kind::Cluster, true, "a:6379"),
            ("valkeys-cluster://a", Kind::Cluster, true, "a:6379"),
            (
                "redis-sentinel://a?node=b:2&sentinelServiceName=m",
                Kind::Sentinel,
                false,
                "a:26379,b:2",
            ),
            ("rediss-sentinel://a:1", Kind::Sentinel, true, "a:1"),
        ] {
            let url = parse(text);
            assert_eq!(
                (url.kind, url.tls, nodes(&url).as_str()),
                (kind, tls, where_),
                "{text}"
            );
        }
        for (text, path, db) in [
            ("unix:///run/redis.sock", "/run/redis.sock", None),
            (
                "redis+unix:///run/a%20b.sock?db=3",
                "/run/a b.sock",
                Some("3"),
            ),
        ] {
            let url = parse(text);
            assert_eq!(
                (url.kind, url.path.as_str(), url.db.as_deref()),
                (Kind::Unix, path, db)
            );
        }
    }

    #[test]
    fn logins_are_decoded_and_the_sentinels_have_their_own() {
        let url = parse(
            "redis-sentinel://me:p%40s%2Fs+@a/4?sentinelServiceName=m&sentinelUsername=you&sentinelPassword=q%26",
        );
        let secret =
            |secret: &Option<SecretString>| secret.as_ref().unwrap().expose_secret().to_owned();
        assert_eq!(url.username.as_deref(), Some("me"));
        assert_eq!(secret(&url.password), "p@s/s+");
        assert_eq!(
            (url.db.as_deref(), url.master.as_deref()),
            (Some("4"), Some("m"))
        );
        assert_eq!(url.sentinel_username.as_deref(), Some("you"));
        assert_eq!(secret(&url.sentinel_password), "q&");
        assert_eq!(secret(&parse("redis://:only@host").password), "only");
    }

    #[test]
    fn a_password_that_is_not_escaped_is_refused_with_what_to_write() {
        for text in [
            "redis://default:57#canary@127.0.0.1:6379/0",
            "redis://default:57/canary@127.0.0.1:6379/0",
            "redis://default:57?canary@127.0.0.1:6379/0",
            "redis://:ca#na/ry@host",
            "rediss://host:6379/0#canary",
            "redis-sentinel://a:b/canary@host?sentinelServiceName=m",
            "unix:///run/redis.sock#canary",
        ] {
            let error = RedisUrl::parse(text).unwrap_err();
            assert!(error.contains("%23"), "{text}: {error}");
            assert!(!error.contains("canary"), "{error}");
        }
        let error = RedisUrl::parse("redis://:canary%0A@host").unwrap_err();
        assert!(error.contains("%0A"), "{error}");
        for (text, where_) in [
            ("redis://:a@b@host", "host:6379"),
            ("redis://:57%23canary@host:1", "host:1"),
            (
                "redis-sentinel://a?sentinelServiceName=m&sentinelPassword=q@b",
                "a:26379",
            ),
        ] {
            assert_eq!(nodes(&parse(text)), where_, "{text}");
        }
        assert_eq!(parse("unix:///run/a@b.sock").path, "/run/a@b.sock");
    }

    #[test]
    fn what_is_no_url_is_refused_without_showing_it() {
        for text in [
            "canary",
            "http://canary",
            "redis://",
            "redis://canary@host",
            "redis://host?canary=1",
            "redis://host?node=b:1",
            "redis-cluster://a?node=canary:x",
        ] {
            let error = RedisUrl::parse(text).unwrap_err();
            assert!(!error.contains("canary"), "{error}");
        }
    }
}
