//! `check`: whether the worker could do its work from here, part by part. The facts come from
//! `queue`, `store` and `edge`; what they mean, and what to do, is said here.

mod finding;
mod queue;
mod reads;
mod redis;

use std::time::Duration;

use entitlement_sync::config::{Config, Uses};
use entitlement_sync::edge::Edge;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::output::{self, Format};
use super::{Ended, session};
use finding::{Check, PROBE_TIMEOUT, Status};

/// Try all that the worker needs, and say what to mend
///
/// Looks at the configuration, the way to the queue and to Redis, who AWS takes us for, what we may
/// do with the queue and how it is set, the clock, and what Redis is set to. Receives nothing. Writes
/// one key of its own to Redis, and deletes it. Ends within a minute, whatever hangs.
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
    /// Look at what `serve` needs, and not at the queue
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
            Some(reads) => reads::check(reads, &config.redis, &keys).await,
            None => Vec::new(),
        }
    };
    let (queue, redis, reads, edge) = tokio::join!(
        of_queue,
        redis::check(&config.redis, &config.writes, &keys),
        of_reads,
        edge_api(&edge, config.reads.is_some())
    );
    let mut checks = configuration(config);
    checks.extend(queue);
    checks.extend(redis);
    checks.extend(reads);
    checks.push(edge);
    checks
}

const OF_WORKER: &str = "check SERVER_API_KEY, EDGE_API_URL and the way out; it is needed only for credentials and for where errors are reported";

/// The worker does without the Edge API where AWS gives it credentials. Questions about customers that Redis does not
/// hold are answered by nothing else.
async fn edge_api(edge: &Edge, is_read: bool) -> Check {
    const NAME: &str = "edge-api";
    let advice = match is_read {
        true => {
            "check SERVER_API_KEY, EDGE_API_URL and the way out: without it only customers that Redis holds are answered for"
        }
        false => OF_WORKER,
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
        return vec![Check::pass(NAME, "entitlement-sync config shows it")];
    }
    let advice = "mend it, or leave it if it is meant; entitlement-sync config shows all";
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

/// Something that moves, for whoever looks.
fn watch() -> ProgressBar {
    if !output::has_watcher() {
        return ProgressBar::hidden();
    }
    let bar =
        ProgressBar::new_spinner().with_message("looking at the queue, Redis and the Edge API");
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
