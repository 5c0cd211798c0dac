//! How the connection is set up: every default of fred that would lose or hang is set here.

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

/// A command that has no answer by then has failed, though it may still be carried out.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(2_000);
/// For connecting, authentication included: several round trips.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_000);
/// The same for a node that is only asked where the primary is: there are others.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Begins to connect to the primary and never gives up; never waits.
pub fn connect(redis: &RedisConfig, at: Option<&Address>) -> anyhow::Result<Client> {
    // For ever: a finite number would leave a dead client behind. fred waits before it connects at
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

/// Connects to the primary once, or says why it cannot.
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

/// Connects once to a sentinel or a node of a cluster, to ask where the primary is.
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

/// Whether what the connection needs is there, certificates above all.
pub fn check(redis: &RedisConfig) -> anyhow::Result<()> {
    redis.tls.as_ref().map(tls::config).transpose().map(drop)
}

/// The database to select. Database 0 is where a connection begins; proxies, clusters and servers without `SELECT`
/// refuse to be asked for it.
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
        (None, topology) => anyhow::bail!("the primary of {} is not known", topology.name()),
    };
    let config = Config {
        // Wait for a Redis that is not there yet.
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
            // We try again ourselves, knowing what for.
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = 10_000;
            // A password that is rotated, or mended, is taken up without a restart.
            connection.reconnect_on_auth_error = true;
            // A frozen server or a half-open connection is left for a new one.
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(COMMAND_TIMEOUT),
                interval: Duration::from_millis(250),
            };
            connection.tcp = TcpConfig {
                nodelay: Some(true),
                ..TcpConfig::default()
            };
            // After a failover the old primary answers so; its name may point elsewhere by now.
            connection.reconnect_errors = vec![
                ReconnectError::ClusterDown,
                ReconnectError::MasterDown,
                ReconnectError::ReadOnly,
            ];
        });
    Ok(builder)
}
