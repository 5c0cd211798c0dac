//! Writes `--help`, `--version` and the log line at start.

use std::fmt::Write as _;

use entitlement_sync::config::{Config, Need, SentryConfig, VARIABLES};
use entitlement_sync::consumer::budget;

pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (data layout sdk-3)");

/// Returns the list of variables with their defaults, never a value of this environment.
pub fn after() -> String {
    let mut help = String::from("Environment:\n");
    let width = VARIABLES
        .iter()
        .map(|variable| variable.name.len())
        .max()
        .unwrap_or(0);
    for variable in VARIABLES {
        let need = match variable.need {
            Need::Required => " [required]".to_owned(),
            Need::Default(default) => format!(" [default: {default}]"),
            Need::Optional | Need::Alias(_) => String::new(),
        };
        let _ = writeln!(help, "  {:width$}  {}{need}", variable.name, variable.about);
    }
    help.push_str(
        "\nExit codes:\n  0   drained after SIGTERM, SIGINT, SIGHUP or SIGQUIT\n  2   wrong arguments\n  70  failed, for example because the port is in use\n  75  the shutdown took longer than SHUTDOWN_TIMEOUT_SECS\n  78  wrong configuration\n  130, 131, 143  ended by a second SIGINT, SIGQUIT or SIGTERM\n",
    );
    help
}

/// Logs the effective configuration, and a warning for each possible mistake.
pub fn log(config: &Config) {
    let redis = config.redis.as_ref();
    let snapshots = config.snapshots.as_ref().map(|it| &it.path);
    let inflight = budget::limit_kib(config.queue.max_inflight_bytes, budget::memory_limit());
    tracing::info!(
        version = VERSION,
        queue = %config.queue.url,
        region = config.queue.region,
        endpoint = %config.queue.endpoint,
        consumers = config.queue.consumers,
        batch_size = config.queue.batch_size,
        min_pollers = config.queue.min_pollers,
        max_inflight_bytes = u64::from(inflight) << 10,
        store = if redis.is_some() { "redis" } else { "memory" },
        redis = redis.map(tracing::field::display),
        redis_mode = redis.map(|redis| redis.topology.name()),
        redis_user = redis.and_then(|redis| redis.login.username.as_deref()),
        redis_tls = redis.map(|redis| redis.tls.is_some()),
        wait_replicas = redis.map(|redis| redis.wait_replicas),
        snapshots = snapshots.map(|path| path.display().to_string()),
        prefix = config.writes.prefix,
        keys_ttl_secs = config.writes.ttl_secs,
        update_if_exists = config.writes.update_if_exists,
        invalidate = config.writes.rules.invalidate,
        omit_credits = config.writes.rules.omit_credits,
        lock_retries = config.writes.lock_retries,
        max_receive_count = config.queue.max_receive_count,
        dead_letter_max_len = config.queue.dead_letter_max_len,
        edge_api = %config.edge.url,
        sentry = !matches!(config.sentry, SentryConfig::Off),
        port = config.port,
        read_port = config.reads.as_ref().map(|reads| reads.port),
        shutdown_timeout_secs = config.shutdown_timeout.as_secs(),
        "starting"
    );
    warn(config);
}

/// Logs the configuration of a process that runs only the read API.
pub fn log_reader(config: &Config) {
    let (reads, redis) = (config.reads.as_ref(), config.redis.as_ref());
    tracing::info!(
        version = VERSION,
        redis = redis.map(tracing::field::display),
        redis_mode = redis.map(|redis| redis.topology.name()),
        redis_user = redis.and_then(|redis| redis.login.username.as_deref()),
        redis_tls = redis.map(|redis| redis.tls.is_some()),
        prefix = config.writes.prefix,
        invalidate = config.writes.rules.invalidate,
        edge_api = %config.edge.url,
        sentry = !matches!(config.sentry, SentryConfig::Off),
        port = config.port,
        read_port = reads.map(|reads| reads.port),
        local_ttl_secs = reads.and_then(|reads| reads.ttl).map(|ttl| ttl.as_secs()),
        shutdown_timeout_secs = config.shutdown_timeout.as_secs(),
        "starting the read API"
    );
    warn(config);
}

fn warn(config: &Config) {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}
