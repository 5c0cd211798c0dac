//! `warm`: loads customers whole from the Edge API into Redis.

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

/// Load customers whole from the Edge API into Redis
#[derive(clap::Args)]
#[command(
    long_about = "Loads customers whole from the Edge API into Redis, by the rule that the worker writes by: for a Redis that is\n\
        new, empty or moved, so that SDKs find their customers at once. What Redis holds and is newer stays. It is safe\n\
        beside running workers and SDKs, and safe to do again.\n\n\
        Each line names a customer, or a customer and one of its resources: an id, two ids with a tab between them, or\n\
        JSON such as {\"customerId\":\"acme\",\"resourceId\":\"site-1\"}.\n\n\
        Readers take a resource only if it is as new as its customer: after a newer write of a customer, each of its\n\
        resources is a miss until it is written again. --with-resources finds those that Redis holds of the\n\
        customers named, and loads them after them.\n\n\
        UPDATE_IF_EXISTS does not count here: what is loaded is written, cached before or not. With INVALIDATE the\n\
        entitlements in Redis are the SDKs' own, and there is nothing to load.",
    after_help = "Exit codes: 0 all were loaded, or there is nothing to load of them; 1 one at least failed; 66 no such file, or\n\
        a bad line; 69 no Redis or no Edge API; 77 SERVER_API_KEY or Redis refuses; 78 wrong configuration;\n\
        130 stopped by a signal.\n\n\
        Examples:\n\
        \x20 entitlement-sync warm --customers customers.txt --resume done.jsonl\n\
        \x20 entitlement-sync warm --customers - --concurrency 20 --rate 100 < customers.txt\n\
        \x20 echo acme | entitlement-sync warm --customers - --with-resources"
)]
pub struct Arguments {
    /// A file of customers, one a line; - for standard input
    #[arg(long, value_name = "FILE")]
    customers: String,
    #[command(flatten)]
    bounds: Bounds,
    /// A file to which those that are done with are added; those in it are left out
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Load the resources too that Redis holds of these customers
    #[arg(long)]
    with_resources: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize, Default)]
struct Report {
    loaded: u64,
    /// What Redis holds is newer.
    stale: u64,
    /// Written as customers without entitlements.
    empty: u64,
    /// The Edge API gives no time to compare, and Redis holds entitlements already.
    kept: u64,
    /// Left out, by the file to resume by.
    done_before: u64,
    /// Resources that are older than their customer, so that readers miss them.
    behind: u64,
    #[serde(flatten)]
    unloaded: Unloaded,
}

/// How Redis took a customer.
enum Loaded {
    Written {
        is_empty: bool,
        /// It is a resource, older than its customer.
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
        Some(path) => format!("the same command goes on, by --resume {}", path.display()),
        None => "the same command begins anew; with --resume <file> it would go on".into(),
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
    // Usage may be written where the entitlements are not, so their own time says which it was.
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

/// The resources that Redis holds of the customers named, and that are not named themselves.
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
                "{} left as Redis holds them: the Edge API gives no time to compare",
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
            output::line(format!("{} were done before", self.done_before))?;
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
