//! `check`: tests whether the worker could run here. `queue`, `store` and `edge` return the facts; this module judges
//! them and advises.

mod finding;
mod queue;
mod reads;
mod redis;
mod snapshots;

use std::time::Duration;

use entitlement_sync::config::{Config, Uses};
use entitlement_sync::edge::Edge;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::output::{self, Format};
use super::{Ended, session};
use finding::{Check, PROBE_TIMEOUT, Status};

/// Test everything that the worker needs, and suggest fixes
///
/// Tests the configuration, the connections to the queue and to Redis, the AWS identity, the permissions and settings
/// of the queue, the clock, and the settings of Redis. Receives no messages. Writes one key of its own to Redis and
/// deletes it. Ends within a minute, even if a service hangs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  entitlement-sync check
  entitlement-sync check --reads
  entitlement-sync check --json | jq '.checks[] | select(.status != \"pass\")'
  kubectl exec deployment/entitlement-sync -- /entitlement-sync check

Exit codes:
  0   nothing failed; there may be warnings
  1   something failed: the worker would not work
  78  wrong configuration")]
pub struct Arguments {
    /// Test what `serve` needs, without the queue
    #[arg(long)]
    reads: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Report<'a> {
    /// Whether nothing failed.
    ok: bool,
    checks: &'a [Check],
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let uses = match arguments.reads {
        true => &Uses::SERVE,
        false => &Uses::ALL,
    };
    let config = session::configuration(uses)?;
    let watched = watch();
    let checks = all(&config, !arguments.reads).await;
    watched.finish_and_clear();
    let count = |status| checks.iter().filter(|it| it.status == status).count();
    let (failed, warned) = (count(Status::Fail), count(Status::Warn));
    if arguments.format.is_json() {
        output::json(&Report {
            ok: failed == 0,
            checks: &checks,
        })?;
    } else {
        let rows: Vec<_> = checks.iter().map(row).collect();
        output::table(["CHECK", "", "FOUND"], &rows)?;
        output::line(format!(
            "\n{} passed, {warned} warned, {failed} failed",
            count(Status::Pass)
        ))?;
        for check in &checks {
            if let Some(advice) = &check.advice {
                output::line(format!(
                    "  {} {}: {advice}",
                    verdict(check.status),
                    check.name
                ))?;
            }
        }
    }
    Ok(if failed == 0 {
        Ended::Well
    } else {
        Ended::Found
    })
}

async fn all(config: &Config, with_queue: bool) -> Vec<Check> {
    let edge = Edge::new(&config.edge);
    let keys = session::keys(config);
    let of_queue = async {
        match with_queue {
            true => queue::check(&config.queue, &edge).await,
            false => Vec::new(),
        }
    };
    let of_reads = async {
        match &config.reads {
            Some(reads) => reads::check(reads, config.redis.as_ref(), &keys).await,
            None => Vec::new(),
        }
    };
    let of_redis = async {
        match &config.redis {
            Some(redis) => redis::check(redis, &config.writes, &keys).await,
            None => Vec::new(),
        }
    };
    let (queue, redis, reads, edge) = tokio::join!(
        of_queue,
        of_redis,
        of_reads,
        edge_api(&edge, config.reads.is_some())
    );
    let mut checks = configuration(config);
    checks.extend(queue);
    checks.extend(redis);
    checks.extend(reads);
    checks.push(edge);
    checks.extend(snapshots::check(
        config.snapshots.as_ref(),
        &config.writes.prefix,
        config.redis.is_none(),
    ));
    checks
}

const WORKER_ADVICE: &str = "check SERVER_API_KEY, EDGE_API_URL and the network; the worker needs it only for queue credentials and the Sentry DSN";

/// Tests the Edge API. The worker does not need it if AWS gives it credentials. The read API needs it for customers
/// that Redis does not hold.
async fn edge_api(edge: &Edge, is_read: bool) -> Check {
    const NAME: &str = "edge-api";
    let advice = match is_read {
        true => {
            "check SERVER_API_KEY, EDGE_API_URL and the network: without it the read API answers only for customers in Redis"
        }
        false => WORKER_ADVICE,
    };
    match tokio::time::timeout(PROBE_TIMEOUT, edge.sentry_dsn()).await {
        Ok(Ok(_)) => Check::pass(NAME, format!("{} accepts the key", edge.url())),
        Ok(Err(error)) => Check::warn(NAME, format!("{error:#}"), advice),
        Err(_) => Check::warn(NAME, "no answer in time", advice),
    }
}

fn configuration(config: &Config) -> Vec<Check> {
    const NAME: &str = "configuration";
    if config.warnings.is_empty() {
        return vec![Check::pass(NAME, "valid; entitlement-sync config shows it")];
    }
    let advice =
        "fix it, or ignore it if it is intended; entitlement-sync config shows all settings";
    let warnings = config.warnings.iter();
    warnings.map(|it| Check::warn(NAME, it, advice)).collect()
}

fn row(check: &Check) -> [String; 3] {
    [
        check.name.to_owned(),
        verdict(check.status),
        check.detail.clone(),
    ]
}

fn verdict(status: Status) -> String {
    match status {
        Status::Pass => output::good().apply_to("pass"),
        Status::Warn => output::doubtful().apply_to("warn"),
        Status::Fail => output::bad().apply_to("FAIL"),
    }
    .to_string()
}

/// Shows a spinner while the checks run.
fn watch() -> ProgressBar {
    if !output::has_watcher() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message("testing the queue, Redis and the Edge API");
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
