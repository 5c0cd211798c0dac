//! Keeps the Redis keys that Stigg's server SDK reads up to date from an SQS queue.
//!
//! The modules in the order of the data:
//!
//! ```text
//!  SQS ── queue ──▶ consumer ──▶ message ──▶ plan ──▶ store ──▶ Redis
//!           ▲        (pool)      what it     what to   compare and write,
//!           │                    says        write     atomically
//!           └── acknowledger ◀──────────────────┘ only what Redis holds is acknowledged
//! ```
//!
//! Around them: [`config`] is all that reads the environment, [`keys`] all that spells a key,
//! [`health`] what the process knows of itself, [`server`] what it tells, [`telemetry`] and
//! [`metrics`] what it leaves behind, [`edge`] the vendor's API, [`shutdown`] the signals, [`check`]
//! what an operator is told of all of them.
//!
//! Deliberately absent: state outside Redis and the queue; a trait in front of Redis; retries of
//! the SDKs around receiving and writing; globals; anything that logs a body. docs/architecture.md
//! says more, and a test holds it.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod check;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod edge;
pub mod health;
mod http_agent;
pub mod metrics;
pub mod pool;
pub mod queue;
pub mod reads;
pub mod runtime;
mod said;
mod serve;
pub mod server;
pub mod shutdown;
pub mod status;
pub mod store;
pub mod telemetry;

pub use serve::serve;

pub use entitlement_core::{keys, message, plan, reader};

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use config::Config;
use consumer::budget::{Budget, memory_limit};
use consumer::{Acknowledger, Limit, Parking, Policy, Shared, Unknown};
use edge::Edge;
use health::Health;
use keys::Keys;
use metrics::{Metrics, Operation, Scrape};
use plan::Planner;
use queue::{Queue, Settings, SqsQueue};
use serve::Answering;
use status::Observer;
use store::Store;
use telemetry::{Telemetry, Traces};

/// The Redis layout that is written: the one of SDK 2.x and 3.x, which 4.x reads too.
pub const DATA_LAYOUT: &str = "sdk-3";

/// The commit that was built, where the build was told.
pub const REVISION: &str = match option_env!("REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything in hand was finished or given back.
    Drained,
    /// `SHUTDOWN_TIMEOUT_SECS` were over first; SQS redelivers the messages in flight.
    Overran,
}

/// Runs the service until `shutdown` is cancelled and the drain is over. An error is one that
/// waiting cannot mend: an absent Redis or queue is waited for.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) -> anyhow::Result<Ended> {
    let health = Arc::new(Health::default());
    let (metrics, mut registry) = Metrics::beside(telemetry.lines.dropped());
    let consumers = config.queue.consumers;
    let pollers = Arc::new(AtomicUsize::new(0));
    let parking = Arc::new(Parking::new(
        pollers.clone(),
        consumers,
        config.queue.min_pollers,
    ));
    let (settings_sender, settings) = watch::channel(Settings::default());
    registry.register_collector(Box::new(Scrape {
        health: health.clone(),
        pollers,
        configured: consumers,
        settings: settings.clone(),
    }));
    let keys = Keys::new(&config.writes.prefix);
    let store = Store::connect(
        &config.redis,
        &config.writes,
        keys.clone(),
        metrics.clone(),
        health.clone(),
    )?;
    if !config.writes.rules.invalidate {
        tokio::spawn(store::warn_of_newer_layout(store.clone()));
    }
    let edge = Edge::new(&config.edge);
    let answering = Answering::begin(&config, &store, &edge, &metrics, &mut registry)?;
    let asked = store.clone();
    let known = watch::Sender::new(None);
    let observer = Arc::new(Observer {
        health: health.clone(),
        metrics: metrics.clone(),
        settings: settings.clone(),
        credentials: known.subscribe(),
        recent: telemetry.recent,
        redactor: telemetry.redactor,
        configuration: config.effective,
        redis_mode: config.redis.topology.name(),
        redis_version: Box::new(move || asked.version()),
        reads: answering.as_ref().map(|answering| answering.reads.clone()),
    });
    // Before anything is waited for, so that probes are always answered.
    let (server, server_handle) =
        server::start(config.port, health.clone(), observer.clone(), registry)
            .with_context(|| format!("cannot serve HTTP on port {}: set PORT", config.port))?;
    let server = tokio::spawn(server);
    tokio::spawn(async move { observer.summarise().await });

    let reports = telemetry.reports;
    tokio::spawn(telemetry::report_errors(
        config.sentry,
        reports.clone(),
        edge.clone(),
    ));
    let traces = Traces::start(config.traces.as_ref(), &config.queue.url)?;
    let credentials = queue::known_credentials(&config.queue, &edge, known).await;
    let queue = Arc::new(SqsQueue::new(&config.queue, credentials).await);
    tokio::spawn(watch_settings(
        queue.clone(),
        settings_sender,
        metrics.clone(),
    ));

    let (acknowledger, deleting) = Acknowledger::start(
        queue.clone(),
        metrics.clone(),
        // Twice as many as receives: a delete may take longer than a receive that finds messages.
        (2 * consumers).clamp(4, 128),
        config.queue.is_fifo(),
    );
    let shared = Arc::new(Shared {
        queue,
        store: store.clone(),
        planner: Planner {
            keys,
            rules: config.writes.rules,
            ttl_secs: config.writes.ttl_secs,
        },
        acknowledger,
        budget: Budget::new(config.queue.max_inflight_bytes, memory_limit(), &metrics),
        large: Arc::new(Semaphore::new(consumer::LARGE_AT_ONCE)),
        doubtful: Arc::new(Semaphore::new(1)),
        suspects: consumer::Suspects::default(),
        health: health.clone(),
        metrics,
        settings,
        shutdown: shutdown.clone(),
        polls_over: consumer::last_polls(&shutdown),
        drain: config.shutdown_timeout,
        policy: Policy {
            batch_size: config.queue.batch_size,
            fifo: config.queue.is_fifo(),
            update_if_exists: config.writes.update_if_exists,
            lock_retries: config.writes.lock_retries,
            max_receive_count: config.queue.max_receive_count,
            dead_letter_max_len: config.queue.dead_letter_max_len,
        },
        refusals: Limit::per_minute(30),
        outages: Limit::per_minute(30),
        unknown: Unknown::default(),
        traces: traces.clone(),
        parking,
    });
    let mut pool = tokio::spawn(pool::run(shared, consumers));

    shutdown.cancelled().await;
    health.drain();
    let drain = async {
        // Consumers finish what they hold; the last to go lets the acknowledger finish too.
        let _ = (&mut pool).await;
        let _ = deleting.await;
        if let Some(answering) = answering {
            answering.end().await;
        }
        store.close().await;
        telemetry::flush(reports, traces, Duration::from_secs(1)).await;
    };
    let ended = match tokio::time::timeout(config.shutdown_timeout - MARGIN, drain).await {
        Ok(()) => Ended::Drained,
        Err(_) => Ended::Overran,
    };
    server_handle.stop(false).await;
    server.abort();
    Ok(ended)
}

/// For stopping HTTP and leaving, within `SHUTDOWN_TIMEOUT_SECS`.
pub(crate) const MARGIN: Duration = Duration::from_millis(500);

/// Asks now and then what the queue is set to. Without the right to ask, defaults are assumed.
async fn watch_settings<Q: Queue>(
    queue: Arc<Q>,
    sender: watch::Sender<Settings>,
    metrics: Metrics,
) {
    const PERIOD: Duration = Duration::from_secs(60);
    const AGAIN: Duration = Duration::from_secs(5);
    const MOST_FAILURES: u32 = 12;
    let mut said = None;
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let answer = queue.settings().await;
        metrics.called(Operation::Attributes, started, &answer);
        let pause = match &answer {
            Ok(settings) => {
                let known = Settings {
                    depth: None,
                    ..*settings
                };
                if said.as_ref() != Some(&Ok(known)) {
                    tracing::info!(
                        visibility_timeout_secs = settings.visibility_timeout.as_secs(),
                        redrive_after = settings.max_receive_count,
                        "the queue's settings"
                    );
                }
                sender.send_replace(*settings);
                failures = 0;
                PERIOD
            }
            Err(error) => {
                let kind = error.kind;
                if !matches!(&said, Some(Err(known)) if *known == kind) {
                    tracing::warn!(
                        %error,
                        "cannot ask for the queue's settings; assuming 30 s of visibility timeout and no dead-letter queue"
                    );
                }
                failures += 1;
                // Nobody will tell, so the assumption stands. Other errors, such as a queue that is
                // created only now, may pass; what is known already stays known.
                if kind == queue::QueueErrorKind::AccessDenied || failures >= MOST_FAILURES {
                    // A depth of some time ago tells nothing.
                    sender.send_modify(|settings| settings.depth = None);
                    PERIOD
                } else {
                    AGAIN
                }
            }
        };
        said = Some(match answer {
            Ok(settings) => Ok(Settings {
                depth: None,
                ..settings
            }),
            Err(error) => Err(error.kind),
        });
        tokio::time::sleep(pause).await;
    }
}
