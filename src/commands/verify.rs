//! `verify`: compares customers in Redis with the Edge API.

mod compare;
mod report;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use entitlement_sync::config::Uses;
use entitlement_sync::edge::EdgeError;
use entitlement_sync::keys::{self, Keys};
use entitlement_sync::plan::Step;
use entitlement_sync::store::{AdminClient, Applied, StoreError};

use super::bulk::{
    Bounds, Customer, Problem, Source, each, read_customers, refuse_invalidate, stop_on_signal,
};
use super::output::{self, Format};
use super::{Ended, Failure, INTERRUPTED, UNAVAILABLE, session};
use compare::{Drift, Finding};
use report::Report;

/// Compare customers in Redis with the Edge API
#[derive(clap::Args)]
#[command(
    long_about = "Compares customers in Redis with the Edge API (the source), and lists the differences: state that is missing,\n\
        torn (a value without its time, or a time without its value), differs in a field or in usage, is older than\n\
        the source, or is unknown to the source. State changes all the time, so a difference counts only if it is\n\
        still there a second later.\n\n\
        --repair writes the state of the source, by the worker's rules: newer state in Redis stays, and the output\n\
        lists it as left.\n\n\
        Lines are as for `warm`: an id, two ids separated by a tab, or JSON. Instead of a list, --sample picks\n\
        random customers and resources from Redis; for that it scans all keys, a page at a time.",
    after_help = "Exit codes: 0 there is no drift, or all is repaired; 1 drift is left, or a customer could not be compared; 66 file\n\
        not found, or a bad line; 69 Redis or the Edge API unreachable; 77 permission denied by the Edge API or Redis;\n\
        78 wrong configuration; 130 stopped by a signal.\n\n\
        Examples:\n\
        \x20 entitlement-sync verify --sample 100\n\
        \x20 entitlement-sync verify --customers customers.txt --repair --json"
)]
pub struct Arguments {
    /// File of customers, one per line; - for standard input
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "sample",
        conflicts_with = "sample"
    )]
    customers: Option<String>,
    /// Compare N random customers and resources from Redis
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sample: Option<u32>,
    /// Write the state of the source to Redis
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    bounds: Bounds,
    #[command(flatten)]
    format: Format,
}

/// The time between the two comparisons of a difference.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// The result of comparing a customer.
enum Compared {
    Same,
    /// The differences, or those left after a repair.
    Drift {
        found: Vec<Finding>,
        left: Vec<Finding>,
    },
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let mut config = session::configuration(&[Uses::Redis, Uses::Edge])?;
    if arguments.repair {
        refuse_invalidate(&config, "verify --repair")?;
    }
    config.writes.update_if_exists = false;
    let listed = arguments.customers.as_deref().map(read_customers);
    let listed = listed.transpose()?;
    let keys = session::keys(&config);
    let redis = session::redis(&config).await?;
    let customers = match listed {
        Some(customers) => customers,
        None => sample(&redis, &keys, arguments.sample.unwrap_or(1))
            .await
            .map_err(|error| session::redis_failure(&error.into()))?,
    };
    let stop = stop_on_signal()?;
    let check = Check {
        source: Source::new(&config, keys.clone(), arguments.bounds, stop.clone()),
        redis: redis.clone(),
        keys,
        repair_retries: arguments.repair.then_some(config.writes.lock_retries),
    };
    let mut report = Report::default();
    let (unloaded, worked) = each(
        "compared",
        &customers,
        arguments.bounds,
        &stop,
        |customer| check.one(customer),
        |customer, compared| {
            match compared {
                Some(Compared::Same) => report.same += 1,
                Some(Compared::Drift { found, left }) => report.drift(customer, found, left),
                None => {}
            }
            Ok(())
        },
    )
    .await;
    report.unloaded = unloaded;
    redis.close().await;
    if arguments.format.is_json() {
        output::json(&report)?;
    } else {
        report.print(arguments.repair)?;
    }
    worked?;
    if report.unloaded.stopped {
        return Err(Failure::with(INTERRUPTED, "stopped before the end"));
    }
    if report.compared() == 0 && report.unloaded.is_unreachable() {
        return Err(Failure::with(UNAVAILABLE, "no customer could be compared"));
    }
    Ok(if report.is_clean() {
        Ended::Well
    } else {
        Ended::Found
    })
}

/// The parts that comparing one customer needs.
struct Check {
    source: Source,
    redis: AdminClient,
    keys: Keys,
    /// Retries of a locked customer; `None` where nothing is written.
    repair_retries: Option<u32>,
}

impl Check {
    async fn one(&self, customer: &Customer) -> Result<Compared, Problem> {
        let (first, _) = self.look(customer).await?;
        if first.is_empty() {
            return Ok(Compared::Same);
        }
        // An event in flight explains a difference for a moment; a difference that stays is drift.
        tokio::time::sleep(SETTLE_TIME).await;
        let (second, step) = self.look(customer).await?;
        let found: Vec<Finding> = second
            .into_iter()
            .filter(|finding| first.iter().any(|it| it.is_about_the_same(finding)))
            .collect();
        if found.is_empty() {
            return Ok(Compared::Same);
        }
        let left = match (self.repair_retries, step) {
            (Some(retries), Some((step, dated))) => {
                self.repair(customer, &step, dated, retries).await?
            }
            _ => found.clone(),
        };
        Ok(Compared::Drift { found, left })
    }

    /// Returns the current differences and the state of the source; `None` if the source does not know the customer.
    async fn look(
        &self,
        customer: &Customer,
    ) -> Result<(Vec<Finding>, Option<(Step, bool)>), Problem> {
        match self.source.load(customer).await {
            Ok(answer) => {
                let found = self.compare(customer, &answer.step, answer.dated).await?;
                Ok((found, Some((answer.step, answer.dated))))
            }
            Err(Problem::Edge(unknown @ EdgeError::NotFound(_))) => {
                let key = self.keys.entitlements(customer.owner());
                let mut held = self.redis.values(std::slice::from_ref(&key)).await?;
                match held.pop().flatten() {
                    Some(_) => Ok((vec![Finding::new(Drift::Unknown, &key)], None)),
                    None => Err(Problem::Edge(unknown)),
                }
            }
            Err(problem) => Err(problem),
        }
    }

    /// Writes the state of the source, and returns the differences left.
    async fn repair(
        &self,
        customer: &Customer,
        step: &Step,
        dated: bool,
        retries: u32,
    ) -> Result<Vec<Finding>, Problem> {
        let mut applied = self.redis.apply_when_unlocked(&[step], retries).await?;
        if let Some(Applied::Failed(error)) = applied.pop() {
            return Err(Problem::Customer(error.to_string()));
        }
        self.compare(customer, step, dated).await
    }

    /// Returns the differences between a step and Redis.
    async fn compare(
        &self,
        customer: &Customer,
        step: &Step,
        dated: bool,
    ) -> Result<Vec<Finding>, Problem> {
        let metadata = self.keys.metadata(customer.owner());
        let items = step.items.iter().map(|item| item.key.as_str());
        let wanted: Vec<String> = items
            .chain([metadata.as_str()])
            .flat_map(|key| [key.to_owned(), keys::timestamp(key)])
            .collect();
        let values = self.redis.values(&wanted).await?;
        let held = wanted.into_iter().zip(values);
        let held: HashMap<String, String> = held
            .filter_map(|(key, value)| Some((key, value?)))
            .collect();
        let mut found = compare::compare(step, dated, &held);
        // The source has no metadata, so torn metadata is reported and stays.
        if held.contains_key(&metadata) != held.contains_key(&keys::timestamp(&metadata)) {
            found.push(Finding::new(Drift::Torn, &metadata));
        }
        Ok(found)
    }
}

/// Picks customers and resources from Redis, each with equal probability.
async fn sample(redis: &AdminClient, keys: &Keys, most: u32) -> Result<Vec<Customer>, StoreError> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut taken: Vec<Customer> = Vec::new();
    let mut met = 0_usize;
    redis
        .scan(keys.pattern_of_customers(), |key| {
            let Some(owner) = keys.owner_of(key) else {
                return;
            };
            met += 1;
            if taken.len() < most {
                taken.push(Customer::of(owner));
            } else if let Some(place) = taken.get_mut(fastrand::usize(..met)) {
                *place = Customer::of(owner);
            }
        })
        .await?;
    // SCAN may return a key twice.
    let mut seen = HashSet::new();
    taken.retain(|customer| seen.insert(customer.clone()));
    Ok(taken)
}
