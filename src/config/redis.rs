//! Where Redis is, and who we are to it.

use secrecy::SecretString;

use super::read::{Reader, text};
use super::variables::Raw;

#[derive(Debug, Clone)]
pub struct RedisConfig {
    pub host: String,
    pub port: u16,
    pub db: u8,
    pub username: Option<String>,
    pub password: Option<SecretString>,
    pub tls: bool,
}

pub fn read(read: &mut Reader, raw: &mut Raw) -> RedisConfig {
    let (host, port) = address(read, raw.redis_host.take(), raw.redis_port.take());
    let username = read.either(
        ("REDIS_USER", raw.redis_user.take()),
        ("REDIS_USERNAME", raw.redis_username.take()),
    );
    let password = read.secret(raw.redis_password.take());
    if username.is_some() && password.is_none() {
        read.problem(
            "REDIS_PASSWORD",
            "is not set, but REDIS_USER is: set both, or neither",
        );
    }
    RedisConfig {
        host,
        port,
        db: read.number("REDIS_DB", raw.redis_db.take(), 0, 0..=255),
        username,
        password,
        tls: read.boolean("REDIS_TLS", raw.redis_tls.take(), false),
    }
}

/// Host and port. Kubernetes sets `REDIS_PORT=tcp://host:port` beside a service named redis.
fn address(read: &mut Reader, host: Option<String>, port: Option<String>) -> (String, u16) {
    let (host, port) = (text(host), text(port));
    if let Some(host) = &host
        && (host.contains("://") || host.contains('/') || host.contains(char::is_whitespace))
    {
        read.problem(
            "REDIS_HOST",
            format!("is \"{host}\": write the host alone, such as redis"),
        );
    }
    let injected = port.as_deref().and_then(|port| port.strip_prefix("tcp://"));
    let (linked, port) = match injected.and_then(|address| address.rsplit_once(':')) {
        Some((linked, port)) => (Some(linked.to_owned()), Some(port.to_owned())),
        None => (None, port),
    };
    let host = host.or(linked);
    if host.is_none() {
        read.required("REDIS_HOST", None);
    }
    let port = read.number("REDIS_PORT", port, 6379, 1..=65_535);
    (host.unwrap_or_default(), port)
}
