//! `inspect`: shows the state of a customer in Redis, and what an SDK would answer from it.

pub mod gather;
pub mod json;
pub mod print;
pub mod report;

use std::io::{IsTerminal, Write};
use std::time::Duration;

use entitlement_sync::clock::now_ms;
use entitlement_sync::config::Uses;
use entitlement_sync::keys::{Keys, Owner};
use entitlement_sync::store::AdminClient;

use super::output::Format;
use super::progress::Progress;
use super::{Ended, ids, session};
use gather::{Found, Searched};
use report::{Place, Report};

/// Show the state of a customer in Redis, and what an SDK would answer from it
///
/// Shows entitlements with their access, usage and periods; every value with its age and time to live; values without
/// a timestamp; stale resources; the lock of an SDK; and the tombstone of a purge. Changes nothing.
#[derive(clap::Args)]
#[command(
    after_help = "Exits with 0 if an SDK would answer from Redis, and with 1 if it would miss and ask the Edge API, for
example for a customer that is not in Redis.

The command reads known keys directly. It finds resources, credits and leftover usage by SCAN, which reads all
keys of Redis slowly; --quick skips this.

Examples:
  entitlement-sync inspect acme
  entitlement-sync inspect acme --resource site-1 --feature seats
  entitlement-sync inspect acme --watch 5
  entitlement-sync inspect acme --json | jq .answer"
)]
pub struct Arguments {
    /// Id of the customer
    customer: String,
    /// Show this resource of the customer
    #[arg(long, value_name = "RESOURCE")]
    resource: Option<String>,
    /// Show only this feature, with its stored JSON
    #[arg(long, value_name = "FEATURE")]
    feature: Option<String>,
    /// Repeat every SECONDS until interrupted; with --json, print one line each time
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    watch: Option<u64>,
    /// Do not scan all keys for resources, credits and leftover usage
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    format: Format,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let owner = ids::owner(&arguments.customer, arguments.resource.as_deref())?;
    if let Some(feature) = &arguments.feature {
        ids::suffix("feature", feature)?;
    }
    let config = session::configuration(&[Uses::Redis])?;
    let keys = session::keys(&config);
    let redis = session::redis(&config).await?;
    let searched = search(&arguments, &redis, &keys, owner).await?;
    loop {
        let report = look(&arguments, &redis, &keys, owner, searched.clone()).await?;
        let Some(secs) = arguments.watch else {
            if arguments.format.is_json() {
                super::output::json(&report.to_json())?;
            } else {
                report.print()?;
            }
            redis.close().await;
            return Ok(if report.is_answered() {
                Ended::Well
            } else {
                Ended::Found
            });
        };
        show_again(&report, arguments.format)?;
        tokio::time::sleep(Duration::from_secs(secs)).await;
    }
}

async fn search(
    arguments: &Arguments,
    redis: &AdminClient,
    keys: &Keys,
    owner: Owner<'_>,
) -> anyhow::Result<Searched> {
    if arguments.quick {
        return Ok(Searched {
            left_out: Some("--quick".into()),
            ..Searched::default()
        });
    }
    let mut progress = Progress::through_keys(redis.size().await);
    let searched = Searched::look(redis, keys, owner, || progress.add_page()).await;
    progress.finish();
    searched.map_err(|error| session::redis_failure(&error.into()))
}

async fn look<'a>(
    arguments: &'a Arguments,
    redis: &AdminClient,
    keys: &Keys,
    owner: Owner<'a>,
    searched: Searched,
) -> anyhow::Result<Report<'a>> {
    let failed = |error: entitlement_sync::store::StoreError| session::redis_failure(&error.into());
    let found = Found::gather(redis, keys, owner, searched)
        .await
        .map_err(failed)?;
    let resources = report::resources(redis, keys, owner, &found)
        .await
        .map_err(failed)?;
    let feature = arguments.feature.as_deref();
    Ok(Report::new(
        Place::Redis,
        owner,
        feature,
        found,
        resources,
        now_ms(),
    ))
}

/// Prints the report again: in place on a terminal, else one after the other.
fn show_again(report: &Report<'_>, format: Format) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout();
    if format.is_json() {
        return super::output::line(report.to_json());
    }
    if stdout.is_terminal() {
        write!(stdout, "\x1b[H\x1b[2J")?;
    }
    report.print()?;
    if !stdout.is_terminal() {
        writeln!(stdout)?;
    }
    Ok(stdout.flush()?)
}
