//! Reads the TLS settings of Redis.

use std::path::{Path, PathBuf};

use rustls::pki_types::ServerName;

use super::Topology;
use super::url::RedisUrlSource;
use crate::config::read::{Reader, text};
use crate::config::secret_file::shown_path;
use crate::config::variables::Raw;

/// How the worker verifies Redis, and its client certificate. The files are read again for each connection.
#[derive(Debug, Clone)]
pub struct RedisTls {
    /// `None`: the system's roots.
    pub ca_file: Option<PathBuf>,
    /// The client certificate and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// `None`: the host of the connection.
    pub server_name: Option<String>,
    /// The certificate is not verified.
    pub insecure: bool,
}

pub fn read(
    read: &mut Reader,
    raw: &mut Raw,
    url: Option<&RedisUrlSource>,
    topology: &Topology,
) -> Option<RedisTls> {
    let own = text(raw.redis_tls.take()).map(|own| read.boolean("REDIS_TLS", Some(own), false));
    let of_url = url.map(|url| url.parsed.tls);
    if let (Some(own), Some(of_url)) = (own, of_url)
        && own != of_url
    {
        let scheme = if own { "rediss" } else { "redis" };
        read.problem(
            "REDIS_TLS",
            format!("is {}, but the scheme of REDIS_URL contradicts it: unset REDIS_TLS, or write {scheme}", u8::from(own)),
        );
    }
    let is_on = own.or(of_url).unwrap_or(false);
    if is_on && matches!(topology, Topology::Unix(_)) {
        read.problem("REDIS_TLS", "is 1, but REDIS_URL names a socket: unset it");
    }
    let ca_file = file(read, "REDIS_TLS_CA_FILE", raw.redis_tls_ca_file.take());
    let cert = file(read, "REDIS_TLS_CERT_FILE", raw.redis_tls_cert_file.take());
    let key = file(read, "REDIS_TLS_KEY_FILE", raw.redis_tls_key_file.take());
    let server_name = text(raw.redis_tls_server_name.take());
    let insecure = read.boolean(
        "REDIS_TLS_INSECURE_SKIP_VERIFY",
        raw.redis_tls_insecure_skip_verify.take(),
        false,
    );
    if let Some(name) = &server_name
        && ServerName::try_from(name.as_str()).is_err()
    {
        read.problem(
            "REDIS_TLS_SERVER_NAME",
            "is not a valid name: write a host name or an IP address",
        );
    }
    let given = [
        ("REDIS_TLS_CA_FILE", ca_file.is_some()),
        ("REDIS_TLS_CERT_FILE", cert.is_some()),
        ("REDIS_TLS_KEY_FILE", key.is_some()),
        ("REDIS_TLS_SERVER_NAME", server_name.is_some()),
        ("REDIS_TLS_INSECURE_SKIP_VERIFY", insecure),
    ];
    for (name, _) in given.iter().filter(|(_, set)| *set && !is_on) {
        read.problem(name, "is set, but REDIS_TLS is not 1: set both, or neither");
    }
    for (name, _) in given.iter().filter(|(_, set)| *set && insecure) {
        if ["REDIS_TLS_CA_FILE", "REDIS_TLS_SERVER_NAME"].contains(name) {
            read.problem(
                name,
                "is set, but REDIS_TLS_INSECURE_SKIP_VERIFY is 1, so nothing is verified: unset one of them",
            );
        }
    }
    let client = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            read.problem(
                "REDIS_TLS_KEY_FILE",
                "is not set, but REDIS_TLS_CERT_FILE is: set both, or neither",
            );
            None
        }
        (None, Some(_)) => {
            read.problem(
                "REDIS_TLS_CERT_FILE",
                "is not set, but REDIS_TLS_KEY_FILE is: set both, or neither",
            );
            None
        }
    };
    is_on.then_some(RedisTls {
        ca_file,
        client,
        server_name,
        insecure,
    })
}

/// Reads the path of a file, which must be readable at start.
fn file(read: &mut Reader, name: &'static str, value: Option<String>) -> Option<PathBuf> {
    let value = text(value)?;
    if let Err(error) = std::fs::File::open(&value) {
        read.problem(
            name,
            format!(
                "is {}, which cannot be read: {error}",
                shown_path(Path::new(&value))
            ),
        );
    }
    Some(value.into())
}
