//! Puts the worker together from its configuration, runs it, and drains it.

mod state;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, QueueConfig, WriteConfig, store_name};
use crate::consumer::budget::{Budget, memory_limit};
use crate::consumer::{Acknowledger, Flow, Parking, Policy, PollTimes, Shared, Watch, Work};
use crate::edge::Edge;
use crate::health::Health;
use crate::keys::Keys;
use crate::metrics::{Metrics, Operation, Scrape};
use crate::plan::Planner;
use crate::queue::{self, Settings, SqsQueue};
use crate::serve::Answering;
use crate::shutdown::{EXIT_MARGIN, Ended};
use crate::status::Observer;
use crate::telemetry::{self, Telemetry, Traces};
use crate::{pool, server};
use state::State;

/// Runs the worker until `shutdown` is cancelled and the drain is over. While Redis or the queue is
/// unreachable, the worker retries; an error is one that retries cannot fix.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    shutdown: CancellationToken,
) -> anyhow::Result<Ended> {
    let health = Arc::new(match config.redis {
        Some(_) => Health::default(),
        None => Health::in_memory(),
    });
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
    let state = State::begin(&config, &metrics, &mut registry, &health)?;
    let store = state.store.clone();
    let edge = Edge::new(&config.edge);
    let answering = Answering::begin(&config, &store, &edge, &metrics, &mut registry)?;
    let asked = store.clone();
    let known = watch::Sender::new(None);
    let redis_mode = store_name(&config);
    let observer = Arc::new(Observer {
        health: health.clone(),
        metrics: metrics.clone(),
        settings: settings.clone(),
        credentials: known.subscribe(),
        recent: telemetry.recent,
        redactor: telemetry.redactor,
        configuration: config.effective,
        redis_mode,
        redis_version: Box::new(move || asked.version()),
        memory: state.observed(),
        reads: answering.as_ref().map(|answering| answering.reads.clone()),
    });
    state.watch_for_others(&settings, &metrics);
    let admin = state.admin(config.admin_token.as_ref(), answering.as_ref());
    // Starts before any wait, so that probes always get an answer.
    let (server, server_handle) = server::start(
        config.port,
        health.clone(),
        observer.clone(),
        registry,
        admin,
    )
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
    let calls = metrics.clone();
    tokio::spawn(queue::watch_settings(
        queue.clone(),
        settings_sender,
        move |started, answer| calls.called(Operation::Attributes, started, answer),
    ));

    let (acknowledger, deleting) = Acknowledger::start(
        queue.clone(),
        metrics.clone(),
        // Twice the number of receives: a delete may take longer than a receive that finds messages.
        (2 * consumers).clamp(4, 128),
        config.queue.is_fifo(),
        store.durability(),
    );
    let shared = Arc::new(Shared {
        work: Work {
            queue,
            store: store.clone(),
            planner: Planner {
                keys,
                rules: config.writes.rules,
                ttl_secs: config.writes.ttl_secs,
            },
            acknowledger,
            policy: policy(&config.queue, &config.writes),
        },
        flow: Flow::new(
            Budget::new(config.queue.max_inflight_bytes, memory_limit(), &metrics),
            parking,
            settings,
            (shutdown.clone(), config.shutdown_timeout),
            match config.redis {
                Some(_) => PollTimes::beside_others(),
                None => PollTimes::alone(config.shutdown_timeout),
            },
        ),
        watch: Watch::new(health.clone(), metrics, traces.clone()),
    });
    let mut pool = tokio::spawn(pool::run(shared, consumers));

    shutdown.cancelled().await;
    health.drain();
    let drain = async {
        // Consumers finish their messages; when the last one ends, the acknowledger finishes too.
        if (&mut pool).await.is_err() {
            store.stranded();
        }
        let _ = deleting.await;
        if let Some(answering) = answering {
            answering.end().await;
        }
        if let Some(saver) = &state.saver {
            saver.save_last().await;
        }
        store.close().await;
        telemetry::flush(reports, traces, Duration::from_secs(1)).await;
    };
    let ended = match tokio::time::timeout(config.shutdown_timeout - EXIT_MARGIN, drain).await {
        Ok(()) => Ended::Drained,
        Err(_) => Ended::Overran,
    };
    server_handle.stop(false).await;
    server.abort();
    Ok(ended)
}

fn policy(queue: &QueueConfig, writes: &WriteConfig) -> Policy {
    Policy {
        batch_size: queue.batch_size,
        fifo: queue.is_fifo(),
        update_if_exists: writes.update_if_exists,
        lock_retries: writes.lock_retries,
        max_receive_count: queue.max_receive_count,
        dead_letter_max_len: queue.dead_letter_max_len,
    }
}
