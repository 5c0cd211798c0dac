//! Parses hosts and ports.

use std::fmt;
use std::net::Ipv6Addr;

/// The host and port of a server. The host of an IPv6 address has no brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl Address {
    /// Parses `host`, `host:port`, `[::1]:port` or `::1`.
    pub fn parse(text: &str, port: u16) -> Option<Self> {
        let text = text.trim();
        let is_bare_v6 = !text.starts_with('[') && text.matches(':').count() > 1;
        let (host, port) = match text.rsplit_once(':') {
            Some((host, own)) if !is_bare_v6 && !text.ends_with(']') => (host, own.parse().ok()?),
            _ => (text, port),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (is_host(host) && port > 0).then(|| Self {
            host: host.to_owned(),
            port,
        })
    }

    /// Parses several addresses, separated by commas, or returns the invalid entry.
    pub fn parse_list(text: &str, port: u16) -> Result<Vec<Self>, &str> {
        text.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(|entry| Self::parse(entry, port).ok_or(entry))
            .collect()
    }
}

/// Returns whether a text is a name or an IP address; an IPv6 address may have a zone. Any other text may be a secret.
fn is_host(host: &str) -> bool {
    let address = host.split('%').next().unwrap_or(host);
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    address.parse::<Ipv6Addr>().is_ok() || !host.is_empty() && host.bytes().all(is_part)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

pub fn list(addresses: &[Address]) -> String {
    let addresses: Vec<String> = addresses.iter().map(Address::to_string).collect();
    addresses.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_with_and_without_ports_and_brackets() {
        for (text, host, port) in [
            ("redis", "redis", 6379),
            (" redis:1 ", "redis", 1),
            ("10.0.0.1:7000", "10.0.0.1", 7000),
            ("[::1]:7000", "::1", 7000),
            ("[::1]", "::1", 6379),
            ("fd00::2", "fd00::2", 6379),
            ("[fe80::1%eth0]:7000", "fe80::1%eth0", 7000),
            ("my_redis-1.ns.svc", "my_redis-1.ns.svc", 6379),
        ] {
            let address = Address::parse(text, 6379).unwrap();
            assert_eq!(
                (address.host.as_str(), address.port),
                (host, port),
                "{text}"
            );
        }
        for text in [
            "",
            ":1",
            "redis:x",
            "redis:0",
            "redis:70000",
            "a b",
            "u:p@host:1",
            "a/b",
            "password=s3cretKey=",
            "host:6380;password=x",
            "::x",
            "a%b",
            "redis?ssl=true",
        ] {
            assert_eq!(Address::parse(text, 6379), None, "{text}");
        }
        assert_eq!(Address::parse_list("a:1, b:2,", 9).unwrap().len(), 2);
        assert_eq!(Address::parse_list("a,b:x", 9), Err("b:x"));
    }
}
