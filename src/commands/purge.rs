//! `purge`: removes customers from Redis, as a purge event does.

use std::borrow::Cow;

use entitlement_sync::config::Uses;
use entitlement_sync::keys::{self, Keys, Owner};
use entitlement_sync::message::{Entity, Millis, StateChange};
use entitlement_sync::plan::{self, Step};
use entitlement_sync::store::{AdminClient, Applied, StoreError};
use serde::Serialize;

use super::confirm::confirm;
use super::output::{self, Format, bad, dim, doubtful, good};
use super::progress::Progress;
use super::{Ended, Failure, USAGE, ids, session, when};

/// Remove customers from Redis, so that SDKs load them again
///
/// Does what a purge event does, by the same script: deletes the entitlements, the metadata and
/// their timestamps, and stores a tombstone, so that older state in flight is not written
/// again. Usage stays. State newer than --at also stays, and the output names it.
#[derive(clap::Args)]
#[command(
    after_help = "Exits with 0 if all were purged, and with 1 if one was not found, is newer, or stayed locked.

Examples:
  entitlement-sync purge acme
  entitlement-sync purge acme --resource site-1
  entitlement-sync purge acme globex --at 2026-03-01T12:00:00Z --dry-run
  entitlement-sync purge - --yes < customers.txt"
)]
pub struct Arguments {
    /// Ids of customers; - reads them from standard input, one per line
    #[arg(required = true)]
    customers: Vec<String>,
    /// Remove this resource of each customer instead of the customer
    #[arg(long, value_name = "RESOURCE")]
    resource: Option<String>,
    /// Remove state of this time or older: now, ISO 8601, or epoch milliseconds; at most 5 minutes
    /// ahead
    #[arg(long, value_name = "TIME", default_value = "now", value_parser = when::written)]
    at: Millis,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    format: Format,
}

/// Retries of a locked customer, about 8 s: the lock of an SDK that died expires after 5 s.
pub const LOCKED_RETRIES: u32 = 90;
/// Owners per call.
const OWNERS_PER_CALL: usize = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Purged,
    /// Nothing was cached; the command stores the tombstone all the same.
    NotThere,
    /// The stored state is newer than the purge.
    Newer,
    /// An SDK held the lock for all retries.
    Locked,
    /// Redis rejected this customer and accepted others.
    Failed,
}

#[derive(Serialize)]
struct Purged {
    customer: String,
    resource: Option<String>,
    outcome: Outcome,
    /// The time of the entitlements that were stored.
    stored_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let customers = customers(&arguments.customers)?;
    let at = arguments.at;
    let resource = arguments.resource.as_deref();
    let owners: Vec<Owner<'_>> = customers
        .iter()
        .map(|customer| ids::owner(customer, resource))
        .collect::<Result<_, _>>()?;
    let config = session::configuration(&[Uses::Redis])?;
    let keys = session::keys(&config);
    let question = question(&owners, &config.writes.prefix);
    let may = arguments.dry_run || confirm(&question, arguments.yes)?;
    if !may {
        eprintln!("nothing was purged");
        return Ok(Ended::Found);
    }
    let redis = session::redis(&config).await?;
    let mut progress = Progress::start("customers", Some(owners.len() as u64));
    let mut purged = Vec::with_capacity(owners.len());
    let mut failure = None;
    for owners in owners.chunks(OWNERS_PER_CALL) {
        match purge(&redis, &keys, owners, at, arguments.dry_run).await {
            Ok(done) => purged.extend(done),
            Err(error) => {
                failure = Some(session::redis_failure(&error.into()));
                break;
            }
        }
        progress.add(owners.len() as u64);
    }
    progress.finish();
    redis.close().await;
    show(&purged, &arguments)?;
    if let Some(error) = failure {
        let (done, all) = (purged.len(), owners.len());
        eprintln!("entitlement-sync: stopped after {done} of {all} customers");
        return Err(error);
    }
    let is_well = purged.iter().all(|it| it.outcome == Outcome::Purged);
    Ok(if is_well { Ended::Well } else { Ended::Found })
}

fn customers(named: &[String]) -> anyhow::Result<Vec<String>> {
    let mut customers = Vec::with_capacity(named.len());
    let mut seen = std::collections::HashSet::new();
    for name in named {
        let ids = if name == "-" {
            let text = session::input("-")?;
            text.lines()
                .map(|line| line.trim_end_matches('\r').to_owned())
                .filter(|id| !id.is_empty())
                .collect()
        } else {
            vec![name.clone()]
        };
        customers.extend(ids.into_iter().filter(|id| seen.insert(id.clone())));
    }
    if customers.is_empty() {
        return Err(Failure::with(
            USAGE,
            "standard input contains no customers: write one id per line",
        ));
    }
    Ok(customers)
}

fn question(owners: &[Owner<'_>], prefix: &str) -> String {
    match owners {
        [owner] => format!("Purge {} in {prefix}?", name(*owner)),
        owners => format!("Purge {} customers in {prefix}?", owners.len()),
    }
}

fn name(owner: Owner<'_>) -> String {
    match owner.resource {
        Some(resource) => format!("{}, resource {resource}", owner.customer),
        None => owner.customer.to_owned(),
    }
}

/// Purges some owners, in their order.
async fn purge(
    redis: &AdminClient,
    keys: &Keys,
    owners: &[Owner<'_>],
    at: Millis,
    dry_run: bool,
) -> Result<Vec<Purged>, StoreError> {
    let entity = |owner: &Owner<'_>| Entity {
        customer: Cow::Owned(owner.customer.to_owned()),
        resource: owner.resource.map(|id| Cow::Owned(id.to_owned())),
    };
    let change = StateChange::Purge {
        owners: owners.iter().map(entity).collect(),
        at,
    };
    let steps = plan::steps(keys, &change, plan::Rules::default());
    let stored = stored(redis, &steps).await?;
    let outcomes = if dry_run {
        stored.iter().map(|it| (it.would(at), None)).collect()
    } else {
        apply(redis, &steps, &stored).await?
    };
    let rows = owners.iter().zip(stored).zip(outcomes);
    let purged = rows.map(|((owner, stored), (outcome, reason))| Purged {
        customer: owner.customer.to_owned(),
        resource: owner.resource.map(str::to_owned),
        outcome,
        stored_at: stored.times.first().copied().flatten(),
        reason,
    });
    Ok(purged.collect())
}

/// The stored state of one owner before the purge.
struct Stored {
    is_locked: bool,
    is_there: bool,
    /// The times of the entitlements and the metadata.
    times: Vec<Option<i64>>,
}

impl Stored {
    /// Predicts the outcome of a purge.
    fn would(&self, at: Millis) -> Outcome {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        match self {
            Self {
                is_locked: true, ..
            } => Outcome::Locked,
            stored if stored.times.iter().flatten().any(|time| *time > at) => Outcome::Newer,
            Self { is_there: true, .. } => Outcome::Purged,
            _ => Outcome::NotThere,
        }
    }
}

async fn stored(redis: &AdminClient, steps: &[Step]) -> Result<Vec<Stored>, StoreError> {
    let wanted = |step: &Step| {
        let values = step.items.iter().map(|item| item.key.clone());
        let timestamps = step.items.iter().map(|item| keys::timestamp(&item.key));
        let lock = std::iter::once(step.lock.clone());
        lock.chain(values).chain(timestamps).collect::<Vec<_>>()
    };
    let wanted: Vec<String> = steps.iter().flat_map(wanted).collect();
    let mut found = redis.values(&wanted).await?.into_iter();
    let read = |step: &Step| {
        let count = step.items.len();
        let is_locked = found.next().flatten().is_some();
        let values: Vec<_> = found.by_ref().take(count).collect();
        let times: Vec<_> = found.by_ref().take(count).collect();
        Stored {
            is_locked,
            is_there: values.iter().chain(&times).any(Option::is_some),
            times: times
                .iter()
                .map(|time| time.as_ref()?.parse().ok())
                .collect(),
        }
    };
    Ok(steps.iter().map(read).collect())
}

async fn apply(
    redis: &AdminClient,
    steps: &[Step],
    stored: &[Stored],
) -> Result<Vec<(Outcome, Option<String>)>, StoreError> {
    let steps: Vec<&Step> = steps.iter().collect();
    let applied = redis.apply_when_unlocked(&steps, LOCKED_RETRIES).await?;
    let outcome = |(applied, stored): (Applied, &Stored)| match applied {
        Applied::Locked => (Outcome::Locked, None),
        Applied::Written { stale: 1.., .. } => (Outcome::Newer, None),
        Applied::Written { .. } if stored.is_there => (Outcome::Purged, None),
        Applied::Written { .. } | Applied::NotCached | Applied::Expired => {
            (Outcome::NotThere, None)
        }
        Applied::Failed(error) => (Outcome::Failed, Some(error.to_string())),
    };
    Ok(applied.into_iter().zip(stored).map(outcome).collect())
}

fn show(purged: &[Purged], arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.format.is_json() {
        let answer = serde_json::json!({"at": arguments.at, "dry_run": arguments.dry_run, "customers": purged});
        return output::json(&answer);
    }
    let would = |done: &str, would: &str| {
        if arguments.dry_run {
            would.to_owned()
        } else {
            done.to_owned()
        }
    };
    let row = |it: &Purged| {
        let owner = Owner {
            customer: &it.customer,
            resource: it.resource.as_deref(),
        };
        let outcome = match it.outcome {
            Outcome::Purged => good().apply_to(would("purged", "would be purged")),
            Outcome::NotThere => dim().apply_to("not in Redis".to_owned()),
            Outcome::Newer => doubtful().apply_to(format!(
                "kept: newer than {}",
                when::point(i64::try_from(arguments.at).unwrap_or(i64::MAX))
            )),
            Outcome::Failed => bad().apply_to(it.reason.clone().unwrap_or_default()),
            Outcome::Locked => bad().apply_to("locked by an SDK: run the command again".to_owned()),
        };
        [
            name(owner),
            it.stored_at.map_or_else(|| "-".into(), when::point),
            outcome.to_string(),
        ]
    };
    let rows: Vec<_> = purged.iter().map(row).collect();
    output::table(["CUSTOMER", "STORED AS OF", "OUTCOME"], &rows)
}
