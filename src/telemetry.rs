//! Starts logging and error reports, redacted by [`Redactor`].

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

use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{LogConfig, SentryConfig};
use crate::edge::Edge;

/// Libraries that print requests, answers or headers below `info`; a body is never logged.
const VERBOSE_LIBRARIES: [&str; 9] = [
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

/// The parts of telemetry that outlive its start.
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
    // A cap instead of directives, which would raise a quiet filter and yield to a more exact one.
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
        // These have filters of their own: otherwise they would enable every span and event of every
        // library, and each call of the SDK would create dozens.
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

/// Returns the maximum verbosity of a library.
fn most(target: &str) -> LevelFilter {
    match target.split("::").next().unwrap_or(target) {
        // Its warnings contain whole answers; the worker logs their meaning itself.
        "aws_config" => LevelFilter::ERROR,
        // A client could fill the log: it reports each request that is not HTTP as an error.
        "actix_http" => LevelFilter::OFF,
        library if VERBOSE_LIBRARIES.contains(&library) => LevelFilter::INFO,
        _ => LevelFilter::TRACE,
    }
}

/// Decides where errors are reported, and logs the decision.
pub async fn report_errors(config: SentryConfig, reports: Reports, edge: Edge) {
    let dsn = match config {
        SentryConfig::Off => {
            tracing::info!("error reports are off: DISABLE_SENTRY or SENTRY_DSN turns them off");
            return;
        }
        SentryConfig::Dsn(dsn) => dsn,
        SentryConfig::Remote => match edge.sentry_dsn().await {
            Ok(Some(dsn)) => dsn,
            Ok(None) => {
                tracing::info!(
                    "error reports are off: SENTRY_DSN is not set, and the Edge API returned no DSN"
                );
                return;
            }
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "error reports are off: SENTRY_DSN is not set, and the request for a DSN to the Edge API failed; DISABLE_SENTRY=1 stops this request"
                );
                return;
            }
        },
    };
    match reports.send_to(&dsn) {
        Some(host) => tracing::info!(
            host,
            "errors are reported to Sentry; DISABLE_SENTRY=1 stops this"
        ),
        None => tracing::warn!("error reports are off: the Sentry DSN is invalid"),
    }
}

/// Sends waiting log lines and reports, for at most `timeout`. Both run at once, so that a hanging one does not delay the other.
pub async fn flush(reports: Reports, traces: Traces, timeout: Duration) {
    // Both wait by blocking; a failed join is a panic that was logged.
    let reports = tokio::task::spawn_blocking(move || reports.flush(timeout));
    let traces = tokio::task::spawn_blocking(move || traces.flush());
    let both = async { tokio::join!(reports, traces) };
    let _ = tokio::time::timeout(timeout, both).await;
}
