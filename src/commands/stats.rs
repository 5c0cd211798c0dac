//! `stats`: counts the keys of an environment in Redis.

mod tally;

use entitlement_sync::clock::now_ms;
use entitlement_sync::config::Uses;
use entitlement_sync::keys::Keys;
use entitlement_sync::store::{AdminClient, StoreError};
use serde_json::{Value, json};

use super::output::{self, Format, doubtful};
use super::progress::Progress;
use super::{Ended, session, when};
use tally::{Kind, Measure, SAMPLED, Spread, Tally};

/// Count the customers, keys, bytes and ages of this environment in Redis
///
/// Scans all keys, a thousand per page, and pauses after each page for as long as the page took, so
/// that Redis keeps serving other clients. On a cluster it scans every primary. Changes
/// nothing.
#[derive(clap::Args)]
#[command(
    after_help = "The command reads the bytes and the time to live of every tenth key, and extrapolates. Bytes are those of
MEMORY USAGE, or the lengths of values if that is denied. Ages are those of the entitlements of customers and
resources: the current time minus their timestamps.

Exits with 1 if there are values without a timestamp, or timestamps without a value.

Examples:
  entitlement-sync stats
  entitlement-sync stats --limit 100000
  entitlement-sync stats --json | jq .keys.customers.count"
)]
pub struct Arguments {
    /// Stop after this many keys of the environment: a sample of a huge Redis
    #[arg(long, value_name = "KEYS", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    format: Format,
}

struct Stats {
    tally: Tally,
    /// The number of all keys in Redis, if known.
    size: Option<u64>,
    dead_letters: u64,
    is_sample: bool,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let config = session::configuration(&[Uses::Redis])?;
    let keys = session::keys(&config);
    let redis = session::redis(&config).await?;
    let stats = count(&redis, &keys, arguments.limit)
        .await
        .map_err(|error| session::redis_failure(&error.into()))?;
    redis.close().await;
    if arguments.format.is_json() {
        output::json(&stats.to_json())?;
    } else {
        stats.print()?;
    }
    Ok(if stats.tally.torn > 0 {
        Ended::Found
    } else {
        Ended::Well
    })
}

async fn count(redis: &AdminClient, keys: &Keys, limit: Option<u64>) -> Result<Stats, StoreError> {
    let size = redis.size().await;
    let mut progress = Progress::through_keys(size);
    let mut tally = Tally::default();
    let mut scan = redis.browse(keys.pattern_of_all());
    let mut is_sample = false;
    while let Some(mut page) = scan.next().await? {
        progress.add_page();
        if let Some(limit) = limit {
            let left = usize::try_from(limit - tally.counted()).unwrap_or(usize::MAX);
            is_sample = page.len() > left;
            page.truncate(left);
        }
        tally.count(redis, keys, page, now_ms()).await?;
        if is_sample {
            break;
        }
    }
    progress.finish();
    // The key of the stream may hold another type.
    let dead_letters = match redis.count_letters(&keys.dead_letters()).await {
        Err(error) if error.heals() && !error.needs_a_person() => return Err(error),
        answer => answer.unwrap_or(0),
    };
    Ok(Stats {
        tally,
        size,
        dead_letters,
        is_sample,
    })
}

impl Stats {
    fn count(&self, kind: Kind) -> u64 {
        self.tally.keys.get(&kind).copied().unwrap_or_default()
    }

    fn bytes(&self) -> u64 {
        let kinds = self.tally.keys.keys();
        kinds.map(|kind| self.tally.bytes(*kind)).sum()
    }

    fn print(&self) -> anyhow::Result<()> {
        let row = |(kind, count): (&Kind, &u64)| {
            let bytes = self.tally.bytes(*kind);
            [kind.as_str().into(), count.to_string(), size(bytes)]
        };
        let mut rows: Vec<_> = self.tally.keys.iter().map(row).collect();
        rows.push([
            "all".into(),
            self.tally.counted().to_string(),
            size(self.bytes()),
        ]);
        output::table(["KEYS", "COUNT", "BYTES"], &rows)?;
        output::line("")?;
        let span = |number: Option<u64>| number.map_or_else(|| "-".into(), when::span);
        let row = |name: &str, spread: &Spread| {
            [
                name.to_owned(),
                span(spread.smallest()),
                span(spread.median()),
                span(spread.largest()),
            ]
        };
        let rows = [row("age", &self.tally.ages), row("TTL", &self.tally.ttls)];
        output::table(["", "LEAST", "MEDIAN", "MOST"], &rows)?;
        output::line("")?;
        let torn = format!("torn pairs: {}", self.tally.torn);
        let torn = if self.tally.torn > 0 {
            doubtful().apply_to(torn).to_string()
        } else {
            torn
        };
        output::line(torn)?;
        output::line(format!("dead letters: {}", self.dead_letters))?;
        let measure = match self.tally.measure {
            Some(Measure::ValueLengths) => "lengths of values, because MEMORY USAGE is denied",
            Some(Measure::MemoryUsage) | None => "MEMORY USAGE",
        };
        output::line(format!(
            "bytes: {measure}, of one key in {SAMPLED} of each kind; TTL: of these values, {} of them without expiry",
            self.tally.endless
        ))?;
        if self.is_sample {
            let of = match self.size {
                Some(size) => format!("the {size} keys in Redis"),
                None => "all keys".into(),
            };
            output::line(doubtful().apply_to(format!(
                "a sample: stopped after {} keys, of {of}",
                self.tally.counted()
            )))?;
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let kinds = self.tally.keys.iter().map(|(kind, count)| {
            let value = json!({"count": count, "bytes": self.tally.bytes(*kind)});
            (kind.as_str().to_owned(), value)
        });
        let spread = |it: &Spread| json!({"least": it.smallest(), "median": it.median(), "most": it.largest()});
        json!({
            "customers": self.count(Kind::Customers),
            "resources": self.count(Kind::Resources),
            "tombstones": self.count(Kind::Tombstones),
            "keys": kinds.collect::<serde_json::Map<_, _>>(),
            "keys_counted": self.tally.counted(),
            "keys_in_redis": self.size,
            "is_sample": self.is_sample,
            "bytes": self.bytes(),
            "bytes_by": self.tally.measure,
            "age_secs": spread(&self.tally.ages),
            "ttl_secs": spread(&self.tally.ttls),
            "without_ttl_sampled": self.tally.endless,
            "torn_pairs": self.tally.torn,
            "dead_letters": self.dead_letters,
        })
    }
}

fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
