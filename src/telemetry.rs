//! Log lines and error reports, redacted by what [`Redactor`] knows, as is whatever else quotes a service.

mod lines;
mod panics;
mod recent;
mod redact;
mod reports;
mod traces;

pub use lines::{Lines, print};
pub use recent::{Recent, RecentLine};
pub use redact::Redactor;
pub use reports::Reports;
pub use traces::{BatchSpan, Traces};

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use tracing::Level;
use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{LogConfig, SentryConfig};
use crate::edge::Edge;

/// Libraries that print requests, answers or headers below `info`; a body is never logged.
const TALKATIVE: [&str; 9] = [
    "aws_runtime",
    "aws_sigv4",
    "aws_smithy_http_client",
    "aws_smithy_runtime",
    "aws_smithy_runtime_api",
    "fred",
    "hyper_util",
    "ureq",
    "ureq_proto",
];

/// What logging leaves behind beside its lines.
#[derive(Clone)]
pub struct Telemetry {
    pub reports: Reports,
    pub recent: Recent,
    pub redactor: Arc<Redactor>,
    pub lines: Lines,
}

/// Starts logging to standard error.
pub fn start(config: &LogConfig) -> anyhow::Result<Telemetry> {
    let redactor = Arc::new(Redactor::new(&config.secrets)?);
    let filter: EnvFilter = config.filter.parse()?;
    // A cap and no directives: those would raise a quiet filter, and yield to a more exact one.
    let filter = filter.and(filter_fn(|metadata| {
        *metadata.level() <= most(metadata.target())
    }));
    let reports = Reports::new(redactor.clone());
    let recent = Recent::new(redactor.clone());
    let json = config.json.unwrap_or_else(|| !io::stderr().is_terminal());
    let lines = Lines::start(redactor.clone(), io::stderr())?;
    let layer = tracing_subscriber::fmt::layer().with_writer(lines.clone());
    let layer = if json {
        layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed()
    } else {
        layer.with_ansi(io::stderr().is_terminal()).boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        // With filters of their own: otherwise they would ask for every span and event of every
        // library, and each call of the SDK would pay for dozens.
        .with(reports.layer().with_filter(ours(LevelFilter::ERROR)))
        .with(recent.layer().with_filter(ours(LevelFilter::WARN)))
        .init();
    panics::log(lines.clone());
    Ok(Telemetry {
        reports,
        recent,
        redactor,
        lines,
    })
}

fn ours(level: LevelFilter) -> Targets {
    Targets::new().with_target("entitlement_sync", level)
}

/// The lowest level at which a library is heard.
fn most(target: &str) -> Level {
    match target.split("::").next().unwrap_or(target) {
        // Its warnings hold whole answers; what they mean is in our own lines.
        "aws_config" => Level::ERROR,
        library if TALKATIVE.contains(&library) => Level::INFO,
        _ => Level::TRACE,
    }
}

/// Decides where errors are reported, and says so.
pub async fn report_errors(config: SentryConfig, reports: Reports, edge: Edge) {
    let dsn = match config {
        SentryConfig::Off => {
            tracing::info!("errors are reported nowhere: DISABLE_SENTRY or SENTRY_DSN says so");
            return;
        }
        SentryConfig::Dsn(dsn) => dsn,
        SentryConfig::Remote => match edge.sentry_dsn().await {
            Ok(Some(dsn)) => dsn,
            Ok(None) => {
                tracing::info!(
                    "errors are reported nowhere: no SENTRY_DSN, and the Edge API has none"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "errors are reported nowhere: no SENTRY_DSN, and the Edge API could not be asked; DISABLE_SENTRY=1 stops the asking"
                );
                return;
            }
        },
    };
    match reports.send_to(&dsn) {
        Some(host) => tracing::info!(
            host,
            "errors are reported to Sentry; DISABLE_SENTRY=1 stops it"
        ),
        None => tracing::warn!("errors are reported nowhere: the Sentry DSN is unusable"),
    }
}

/// Sends what is waiting, for at most `timeout`. Neither waits for the other: one that hangs takes nothing from it.
pub async fn flush(reports: Reports, traces: Traces, timeout: Duration) {
    // Both wait by blocking; a failed join is a panic that was logged.
    let reports = tokio::task::spawn_blocking(move || reports.flush(timeout));
    let traces = tokio::task::spawn_blocking(move || traces.flush());
    let both = async { tokio::join!(reports, traces) };
    let _ = tokio::time::timeout(timeout, both).await;
}
