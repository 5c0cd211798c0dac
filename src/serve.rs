//! Starts the read API, in the worker or alone as `serve`.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, store_name};
use crate::consumer::budget::memory_limit;
use crate::edge::Edge;
use crate::health::Health;
use crate::keys::Keys;
use crate::metrics::{Metrics, Scrape};
use crate::queue::Settings;
use crate::reads::{Access, Reads};
use crate::saving::{self, Saver, Source};
use crate::server::{self, Admin, reads::Serving};
use crate::shutdown::{EXIT_MARGIN, Ended};
use crate::status::Observer;
use crate::store::{Store, Tracked};
use crate::telemetry::{self, Telemetry, Traces};

/// The read API of this process.
pub struct Answering {
    pub reads: Reads,
    serving: Serving,
    /// Writes snapshots of the copy, where the state is in Redis.
    pub saver: Option<Saver>,
}

impl Answering {
    /// Begins to answer, if the configuration says so. Its metrics join the others.
    pub fn begin(
        config: &Config,
        store: &Store,
        edge: &Edge,
        metrics: &Metrics,
        registry: &mut Registry,
    ) -> anyhow::Result<Option<Self>> {
        let Some(own) = &config.reads else {
            return Ok(None);
        };
        metrics.reads.register(registry);
        let keys = Keys::new(&config.writes.prefix);
        let tracked = match (store.watched(), &config.redis) {
            (Some(watched), _) => Tracked::Memory(watched),
            (None, Some(redis)) => Tracked::start(redis, keys, own.fresh)?,
            (None, None) => anyhow::bail!(NO_REDIS),
        };
        let sources = (store.clone(), tracked, edge.clone());
        let reads = Reads::start(own, &config.writes, sources, memory_limit(), metrics);
        let saver = match (&config.redis, &config.snapshots) {
            (Some(_), Some(snapshots)) => {
                metrics.snapshots.register(registry);
                let (folder, _) = saving::begin(snapshots, &config.writes.prefix, |bytes| {
                    reads.restore(&serde_json::from_slice(bytes)?);
                    Ok(())
                })?;
                tracing::info!(
                    copies = reads.owners(),
                    "the copy is restored; it is not fresh"
                );
                let source = Source::Copies(Box::new(reads.clone()));
                let counts = metrics.snapshots.clone();
                Some(Saver::start(folder, source, snapshots.interval, counts)?)
            }
            _ => None,
        };
        let serving = server::reads::start(own.port, reads.clone(), Access::new(&own.keys))
            .with_context(|| {
                format!(
                    "cannot serve the read API on port {}: set READ_PORT",
                    own.port
                )
            })?;
        tracing::info!(port = own.port, "answering questions");
        Ok(Some(Self {
            reads,
            serving,
            saver,
        }))
    }

    /// Answers the questions in flight, and takes no new ones.
    pub async fn end(self) {
        self.serving.stop().await;
        if let Some(saver) = &self.saver {
            saver.save_last().await;
        }
        self.reads.close().await;
    }
}

const NO_REDIS: &str = "STORE is memory, and serve needs a Redis";
const HEALTH_UPDATE_INTERVAL: Duration = Duration::from_millis(250);

/// Runs a process that answers questions and consumes nothing, until `shutdown` is cancelled.
pub async fn serve(
    config: Config,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) -> anyhow::Result<Ended> {
    let health = Arc::new(Health::answering());
    let (metrics, mut registry) = Metrics::beside(telemetry.lines.dropped());
    let (_, settings) = watch::channel(Settings::default());
    registry.register_collector(Box::new(Scrape {
        health: health.clone(),
        pollers: Arc::new(AtomicUsize::new(0)),
        configured: 0,
        settings: settings.clone(),
    }));
    let store = Store::connect(
        config.redis.as_ref().context(NO_REDIS)?,
        &config.writes,
        Keys::new(&config.writes.prefix),
        metrics.clone(),
        health.clone(),
    )?;
    let edge = Edge::new(&config.edge);
    let answering = Answering::begin(&config, &store, &edge, &metrics, &mut registry)?
        .context("READ_PORT is not set")?;
    let asked = store.clone();
    let redis_mode = store_name(&config);
    let observer = Arc::new(Observer {
        health: health.clone(),
        metrics: metrics.clone(),
        settings,
        credentials: watch::Sender::new(None).subscribe(),
        recent: telemetry.recent,
        redactor: telemetry.redactor,
        configuration: config.effective,
        redis_mode,
        redis_version: Box::new(move || asked.version()),
        memory: None,
        reads: Some(answering.reads.clone()),
    });
    let admin = config.admin_token.as_ref();
    let admin = admin.map(|token| {
        Admin::new(
            token,
            answering.saver.clone(),
            Some(answering.reads.clone()),
            None,
        )
    });
    let (server, server_handle) =
        server::start(config.port, health.clone(), observer, registry, admin)
            .with_context(|| format!("cannot serve HTTP on port {}: set PORT", config.port))?;
    let server = tokio::spawn(server);
    let reports = telemetry.reports;
    tokio::spawn(telemetry::report_errors(
        config.sentry,
        reports.clone(),
        edge,
    ));
    tokio::spawn(update_health(health.clone(), answering.reads.clone()));

    shutdown.cancelled().await;
    health.drain();
    let drain = async {
        answering.end().await;
        store.close().await;
        telemetry::flush(reports, Traces::default(), Duration::from_secs(1)).await;
    };
    let ended = match tokio::time::timeout(config.shutdown_timeout - EXIT_MARGIN, drain).await {
        Ok(()) => Ended::Drained,
        Err(_) => Ended::Overran,
    };
    server_handle.stop(false).await;
    server.abort();
    Ok(ended)
}

/// Keeps the probes up to date.
async fn update_health(health: Arc<Health>, reads: Reads) {
    loop {
        health.can_answer(reads.sources().can_answer());
        health.tick();
        tokio::time::sleep(HEALTH_UPDATE_INTERVAL).await;
    }
}
