//! `warm`: loads customers from the Edge API into Redis.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;

use entitlement_sync::config::Uses;
use entitlement_sync::keys::{self, Keys};
use entitlement_sync::store::{AdminClient, Applied, StoreError};
use serde::Serialize;

use super::bulk::{
    Bounds, Customer, Finished, Problem, Source, Unloaded, each, read_customers, refuse_invalidate,
    stop_on_signal,
};
use super::output::{self, Format};
use super::{Ended, Failure, INTERRUPTED, UNAVAILABLE, session};

/// Load customers from the Edge API into Redis
#[derive(clap::Args)]
#[command(
    long_about = "Loads the full state of customers from the Edge API into Redis, by the worker's rules: for a Redis that is new,\n\
        empty or moved, so that SDKs find their customers at once. Newer state in Redis stays. You can run it while\n\
        workers and SDKs run, and run it again.\n\n\
        Each line names a customer, or a customer and one of its resources: an id, two ids separated by a tab, or\n\
        JSON, for example {\"customerId\":\"acme\",\"resourceId\":\"site-1\"}.\n\n\
        Readers use a resource only if it is as new as its customer: after a newer write of a customer, each of its\n\
        resources is a miss until it is written again. --with-resources finds the resources in Redis of the listed\n\
        customers, and loads them after the customers.\n\n\
        The command ignores UPDATE_IF_EXISTS: it also writes customers that are not cached. It refuses INVALIDATE,\n\
        with which only SDKs write entitlements.",
    after_help = "Exit codes: 0 all were loaded, or have nothing to load; 1 at least one failed; 66 file not found, or a bad line;\n\
        69 Redis or the Edge API unreachable; 77 permission denied by the Edge API or Redis; 78 wrong configuration;\n\
        130 stopped by a signal.\n\n\
        Examples:\n\
        \x20 entitlement-sync warm --customers customers.txt --resume done.jsonl\n\
        \x20 entitlement-sync warm --customers - --concurrency 20 --rate 100 < customers.txt\n\
        \x20 echo acme | entitlement-sync warm --customers - --with-resources"
)]
pub struct Arguments {
    /// File of customers, one per line; - for standard input
    #[arg(long, value_name = "FILE")]
    customers: String,
    #[command(flatten)]
    bounds: Bounds,
    /// File that records finished customers; the command skips the customers in it
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Also load the resources of these customers that Redis holds
    #[arg(long)]
    with_resources: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize, Default)]
struct Report {
    loaded: u64,
    /// Customers whose state in Redis is newer.
    stale: u64,
    /// Customers written without entitlements.
    empty: u64,
    /// Customers for which the Edge API returns no time, and Redis already holds entitlements.
    kept: u64,
    /// Customers skipped because the resume file lists them.
    done_before: u64,
    /// Resources that are older than their customer, which readers miss.
    behind: u64,
    #[serde(flatten)]
    unloaded: Unloaded,
}

/// The outcome of writing a customer.
enum Loaded {
    Written {
        is_empty: bool,
        /// Whether it is a resource older than its customer.
        is_behind: bool,
    },
    Stale,
    Kept,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let mut config = session::configuration(&[Uses::Redis, Uses::Edge])?;
    refuse_invalidate(&config, "warm")?;
    config.writes.update_if_exists = false;
    let mut customers = read_customers(&arguments.customers)?;
    let mut finished = arguments
        .resume
        .as_deref()
        .map(Finished::open)
        .transpose()?;
    let keys = session::keys(&config);
    let redis = session::redis(&config).await?;
    if arguments.with_resources {
        let found = resources(&redis, &keys, &customers).await;
        let found = found.map_err(|error| session::redis_failure(&error.into()))?;
        customers.extend(found);
    }
    let all = customers.len();
    if let Some(finished) = &finished {
        customers.retain(|customer| !finished.holds(customer));
    }
    let stop = stop_on_signal()?;
    let mut report = Report {
        done_before: (all - customers.len()) as u64,
        ..Report::default()
    };
    let source = Source::new(&config, keys.clone(), arguments.bounds, stop.clone());
    let retries = config.writes.lock_retries;
    let (unloaded, worked) = each(
        "loaded",
        &customers,
        arguments.bounds,
        &stop,
        |customer| load(&source, &redis, &keys, customer, retries),
        |customer, loaded| {
            match loaded {
                Some(Loaded::Written {
                    is_empty,
                    is_behind,
                }) => {
                    report.empty += u64::from(is_empty);
                    report.loaded += u64::from(!is_empty);
                    report.behind += u64::from(is_behind);
                }
                Some(Loaded::Stale) => report.stale += 1,
                Some(Loaded::Kept) => report.kept += 1,
                None => {}
            }
            match &mut finished {
                Some(finished) => finished.add(customer),
                None => Ok(()),
            }
        },
    )
    .await;
    report.unloaded = unloaded;
    redis.close().await;
    if arguments.format.is_json() {
        output::json(&report)?;
    } else {
        report.print()?;
    }
    let again = match &arguments.resume {
        Some(path) => format!(
            "run the command again to continue, with --resume {}",
            path.display()
        ),
        None => {
            "run the command again to start over; use --resume <file> to continue next time".into()
        }
    };
    if let Err(error) = worked {
        eprintln!("entitlement-sync: stopped; {again}");
        return Err(error);
    }
    let unloaded = &report.unloaded;
    if unloaded.stopped {
        return Err(Failure::with(INTERRUPTED, format!("stopped; {again}")));
    }
    let done = report.loaded + report.stale + report.empty + report.kept;
    let done = done + unloaded.not_found + unloaded.credits;
    if done == 0 && unloaded.is_unreachable() {
        return Err(Failure::with(UNAVAILABLE, "no customer could be loaded"));
    }
    Ok(match unloaded.failed {
        0 => Ended::Well,
        _ => Ended::Found,
    })
}

async fn load(
    source: &Source,
    redis: &AdminClient,
    keys: &Keys,
    customer: &Customer,
    retries: u32,
) -> Result<Loaded, Problem> {
    let answer = source.load(customer).await?;
    let applied = redis.apply_when_unlocked(&[&answer.step], retries).await?;
    match applied.into_iter().next() {
        Some(Applied::Written { .. } | Applied::NotCached | Applied::Expired) => {}
        Some(Applied::Failed(error)) => return Err(Problem::Customer(error.to_string())),
        Some(Applied::Locked) | None => {
            let locked = "an SDK holds its lock on the customer";
            return Err(Problem::Customer(locked.into()));
        }
    }
    // Usage may be written although the entitlements are not, so the time of the entitlements decides.
    let whole = Customer {
        resource_id: None,
        ..customer.clone()
    };
    let stamps =
        [customer.owner(), whole.owner()].map(|owner| keys::timestamp(&keys.entitlements(owner)));
    let stamps = redis.values(&stamps).await?;
    let time = |place: usize| -> u64 {
        let stamp = stamps.get(place).and_then(Option::as_deref);
        stamp.and_then(|stamp| stamp.parse().ok()).unwrap_or(0)
    };
    let at = answer.step.items.first().map_or(0, |item| item.at);
    Ok(match time(0) == at {
        true => Loaded::Written {
            is_empty: answer.entitlements == 0,
            is_behind: time(0) < time(1),
        },
        false if answer.dated => Loaded::Stale,
        false => Loaded::Kept,
    })
}

/// Returns the resources in Redis of the listed customers, without those that are listed themselves.
async fn resources(
    redis: &AdminClient,
    keys: &Keys,
    named: &[Customer],
) -> Result<BTreeSet<Customer>, StoreError> {
    let whole: HashSet<&str> = named
        .iter()
        .filter(|customer| customer.resource_id.is_none())
        .map(|customer| customer.customer_id.as_str())
        .collect();
    let mut found = BTreeSet::new();
    redis
        .scan(keys.pattern_of_customers(), |key| {
            if let Some(owner) = keys.owner_of(key)
                && owner.resource.is_some()
                && whole.contains(owner.customer)
            {
                found.insert(Customer::of(owner));
            }
        })
        .await?;
    for customer in named {
        found.remove(customer);
    }
    Ok(found)
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        output::line(format!(
            "{} loaded, {} stale, {} empty, {} not found, {} failed",
            self.loaded, self.stale, self.empty, self.unloaded.not_found, self.unloaded.failed
        ))?;
        if self.kept > 0 {
            output::line(format!(
                "{} left unchanged: the Edge API returns no time to compare",
                self.kept
            ))?;
        }
        if self.unloaded.credits > 0 {
            output::line(format!(
                "{} left to SDKs: they have credit entitlements, which this layout cannot hold",
                self.unloaded.credits
            ))?;
        }
        if self.done_before > 0 {
            output::line(format!(
                "{} skipped, as listed in the resume file",
                self.done_before
            ))?;
        }
        if self.behind > 0 {
            output::line(format!(
                "{} resources are older than their customer: readers ask the Edge API for them",
                self.behind
            ))?;
        }
        Ok(())
    }
}
