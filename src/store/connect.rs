//! How the connection is set up: every default of fred that would lose or hang is set here.

use std::time::Duration;

use anyhow::Context;
use fred::prelude::*;
use fred::types::config::{ReconnectError, TcpConfig, TlsConnector, UnresponsiveConfig};
use secrecy::ExposeSecret;

use super::StoreError;
use crate::config::RedisConfig;

/// A command that has no answer by then has failed, though it may still be carried out.
const COMMAND: Duration = Duration::from_millis(2_000);
/// For connecting, authentication included: several round trips.
const CONNECTION: Duration = Duration::from_millis(2_000);

/// Begins to connect and never gives up; never waits.
pub fn connect(redis: &RedisConfig) -> anyhow::Result<Client> {
    let client = builder(redis)?
        // For ever: a finite number would leave a dead client behind.
        .set_policy(ReconnectPolicy::new_exponential(0, 50, 800, 2))
        .build()?;
    // The task runs until the client quits; while it does, it reconnects.
    drop(client.connect());
    Ok(client)
}

/// Connects once, or says why it cannot.
pub async fn connect_once(redis: &RedisConfig) -> anyhow::Result<Client> {
    let mut builder = builder(redis)?;
    builder.with_config(|config| config.fail_fast = true);
    let client = builder.build()?;
    client.init().await.map_err(StoreError::from)?;
    Ok(client)
}

fn builder(redis: &RedisConfig) -> anyhow::Result<Builder> {
    let tls = redis.tls.then(TlsConnector::default_rustls).transpose();
    let config = Config {
        // Wait for a Redis that is not there yet.
        fail_fast: false,
        server: ServerConfig::new_centralized(redis.host.clone(), redis.port),
        database: Some(redis.db),
        username: redis.username.clone(),
        password: redis
            .password
            .as_ref()
            .map(|it| it.expose_secret().to_owned()),
        tls: tls.context("cannot set up TLS for Redis")?.map(Into::into),
        ..Config::default()
    };
    let mut builder = Builder::from_config(config);
    builder
        .with_performance_config(|performance| performance.default_command_timeout = COMMAND)
        .with_connection_config(|connection| {
            connection.connection_timeout = CONNECTION;
            connection.internal_command_timeout = CONNECTION;
            // We try again ourselves, knowing what for.
            connection.max_command_attempts = 1;
            connection.max_command_buffer_len = 10_000;
            // A password that is rotated, or mended, is taken up without a restart.
            connection.reconnect_on_auth_error = true;
            // A frozen server or a half-open connection is left for a new one.
            connection.unresponsive = UnresponsiveConfig {
                max_timeout: Some(COMMAND),
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
