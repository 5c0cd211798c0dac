//! Configures the connection to Redis. It overrides every default of fred that could lose a write or hang.

pub(super) mod credentials;
mod iam;
pub(super) mod tls;

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::*;
use fred::types::config::{
    CredentialProvider, ReconnectError, Server, TcpConfig, UnresponsiveConfig,
};

use super::StoreError;
use crate::config::{Address, Login, RedisConfig, Topology};
use credentials::Credentials;

/// The timeout of a command. Redis may still run a command that timed out.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(2_000);
/// The timeout for connecting and authentication, which take several round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_000);
/// The timeout for connecting to a node that only names the primary; there are other nodes.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Starts to connect to the primary and retries without limit; never waits.
pub fn connect(redis: &RedisConfig, at: Option<&Address>) -> anyhow::Result<Client> {
    // No limit: after a finite number of tries the client would stay dead. fred waits before it connects at
    // all, so the shortest pause is part of every start.
    let mut policy = ReconnectPolicy::new_exponential(0, 5, 800, 2);
    policy.set_jitter(10);
    let client = builder(redis, at, &redis.login)?
        .with_config(|config| config.database = database(redis))
        .set_policy(policy)
        .build()?;
    // The task runs until the client quits; while it does, it reconnects.
    drop(client.connect());
    Ok(client)
}

/// Connects to the primary once, or returns why it cannot.
pub async fn connect_once(redis: &RedisConfig, at: Option<&Address>) -> anyhow::Result<Client> {
    let mut builder = builder(redis, at, &redis.login)?;
    builder.with_config(|config| {
        config.database = database(redis);
        config.fail_fast = true;
    });
    let client = builder.build()?;
    client.init().await.map_err(StoreError::from)?;
    Ok(client)
}

/// Connects once to a sentinel or a node of a cluster, to look up the primary.
pub async fn connect_to_ask(redis: &RedisConfig, node: &Address) -> anyhow::Result<Client> {
    let login = match &redis.topology {
        Topology::Sentinel { login, .. } => login,
        _ => &redis.login,
    };
    let mut builder = builder(redis, Some(node), login)?;
    builder
        .with_config(|config| config.fail_fast = true)
        .with_performance_config(|performance| performance.default_command_timeout = LOOKUP_TIMEOUT)
        .with_connection_config(|connection| {
            connection.connection_timeout = LOOKUP_TIMEOUT;
            connection.internal_command_timeout = LOOKUP_TIMEOUT;
        });
    let client = builder.build()?;
    client.init().await.map_err(StoreError::from)?;
    Ok(client)
}

/// Checks the files that the connection needs, for example certificates.
pub fn check(redis: &RedisConfig) -> anyhow::Result<()> {
    redis.tls.as_ref().map(tls::config).transpose().map(drop)
}

/// Returns the database to select. A connection starts in database 0, so `SELECT 0` is not sent: proxies, clusters and
/// servers without `SELECT` reject it.
pub fn database(redis: &RedisConfig) -> Option<u8> {
    let has_databases = !matches!(redis.topology, Topology::Cluster { .. });
    (has_databases && redis.db != 0).then_some(redis.db)
}

fn builder(redis: &RedisConfig, at: Option<&Address>, login: &Login) -> anyhow::Result<Builder> {
    let server_name = redis.tls.as_ref().and_then(|tls| tls.server_name.clone());
    let centralized = |address: &Address| ServerConfig::Centralized {
        server: Server::new_with_tls(address.host.clone(), address.port, server_name.clone()),
    };
    let server = match (at, &redis.topology) {
        (Some(address), _) | (None, Topology::Standalone(address)) => centralized(address),
        (None, Topology::Unix(path)) => ServerConfig::Unix { path: path.clone() },
        (None, topology) => anyhow::bail!("the primary of {} is unknown", topology.name()),
    };
    let config = Config {
        // Wait for a Redis that is not running yet.
        fail_fast: false,
        server,
        tls: redis.tls.as_ref().map(tls::config).transpose()?,
        credential_provider: Credentials::new(login)
            .map(|credentials| Arc::new(credentials) as Arc<dyn CredentialProvider>),
        ..Config::default()
    };
    let mut builder = Builder::from_config(config);
    builder
        .with_performance_config(|performance| {
            performance.default_command_timeout = COMMAND_TIMEOUT
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECT_TIMEOUT;
            connection.internal_command_timeout = CONNECT_TIMEOUT;
            // The worker retries by itself, because it knows which errors are temporary.
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = 10_000;
            // The worker picks up a rotated or corrected password without a restart.
            connection.reconnect_on_auth_error = true;
            // A new connection replaces one to a frozen server, or a half-open one.
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(COMMAND_TIMEOUT),
                interval: Duration::from_millis(250),
            };
            connection.tcp = TcpConfig {
                nodelay: Some(true),
                ..TcpConfig::default()
            };
            // The reply of the old primary after a failover; its host name may have a new address.
            connection.reconnect_errors = vec![
                ReconnectError::ClusterDown,
                ReconnectError::MasterDown,
                ReconnectError::ReadOnly,
            ];
        });
    Ok(builder)
}
