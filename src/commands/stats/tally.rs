//! Counts keys, bytes and ages during the scan.

use std::collections::BTreeMap;

use entitlement_sync::keys::{self, KeyKind, Keys};
use entitlement_sync::store::{AdminClient, StoreError, Ttl};
use serde::Serialize;

/// Kinds of keys, in the order of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Customers,
    Resources,
    Usage,
    Credits,
    Metadata,
    Timestamps,
    Tombstones,
    /// The marker, the dead letters, and temporary keys of SDKs.
    Other,
}

impl Kind {
    pub fn of(keys: &Keys, key: &str) -> Self {
        let Some(parsed) = keys.read(key) else {
            return Self::Other;
        };
        if parsed.is_timestamp {
            return Self::Timestamps;
        }
        match parsed.kind {
            KeyKind::Entitlements if parsed.owner.resource.is_none() => Self::Customers,
            KeyKind::Entitlements => Self::Resources,
            KeyKind::FeatureUsage(_) => Self::Usage,
            KeyKind::CreditUsage(_) => Self::Credits,
            KeyKind::Metadata => Self::Metadata,
            KeyKind::Tombstone => Self::Tombstones,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Resources => "resources",
            Self::Usage => "usage",
            Self::Credits => "credits",
            Self::Metadata => "metadata",
            Self::Timestamps => "timestamps",
            Self::Tombstones => "tombstones",
            Self::Other => "other",
        }
    }

    /// Returns whether the value has a timestamp key.
    fn has_timestamp(self) -> bool {
        matches!(
            self,
            Self::Customers | Self::Resources | Self::Usage | Self::Credits | Self::Metadata
        )
    }
}

/// How bytes are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// MEMORY USAGE: keys, values and the overhead of Redis.
    MemoryUsage,
    /// Only values, where MEMORY USAGE is denied.
    ValueLengths,
}

/// One key in this many is measured.
pub const SAMPLED: u64 = 10;
/// Maximum numbers kept for a median; of more numbers a random sample is kept.
const MAX_SAMPLES: usize = 100_000;

#[derive(Default)]
pub struct Tally {
    pub keys: BTreeMap<Kind, u64>,
    /// Measured keys, and their bytes.
    measured: BTreeMap<Kind, (u64, u64)>,
    pub measure: Option<Measure>,
    pub ages: Spread,
    pub ttls: Spread,
    /// Measured values without expiry.
    pub endless: u64,
    pub torn: u64,
    seen: u64,
}

impl Tally {
    /// How many keys were counted.
    pub fn counted(&self) -> u64 {
        self.seen
    }

    /// Returns the bytes of a kind, extrapolated from the measured keys.
    pub fn bytes(&self, kind: Kind) -> u64 {
        let count = self.keys.get(&kind).copied().unwrap_or_default();
        match self.measured.get(&kind) {
            Some((measured @ 1.., bytes)) => {
                (*bytes as f64 / *measured as f64 * count as f64).round() as u64
            }
            _ => 0,
        }
    }

    /// Counts a page of keys and measures a sample of their values.
    pub async fn count(
        &mut self,
        redis: &AdminClient,
        keys: &Keys,
        page: Vec<String>,
        now: u64,
    ) -> Result<(), StoreError> {
        let mut values = Vec::new();
        let mut timestamps = Vec::new();
        let mut measured = Vec::new();
        for key in page {
            let kind = Kind::of(keys, &key);
            let count = self.keys.entry(kind).or_default();
            *count += 1;
            self.seen += 1;
            // Includes the first key of each kind, so that every kind is measured.
            if *count % SAMPLED == 1 {
                measured.push((kind, key.clone()));
            }
            if kind.has_timestamp() {
                values.push((kind, key));
            } else if kind == Kind::Timestamps {
                timestamps.push(key);
            }
        }
        self.look_at_values(redis, values, now).await?;
        self.look_at_timestamps(redis, timestamps).await?;
        self.measure(redis, measured).await
    }

    async fn look_at_values(
        &mut self,
        redis: &AdminClient,
        values: Vec<(Kind, String)>,
        now: u64,
    ) -> Result<(), StoreError> {
        let beside: Vec<String> = values.iter().map(|(_, key)| keys::timestamp(key)).collect();
        let mut alone = Vec::new();
        for ((kind, key), stamp) in values.into_iter().zip(redis.values(&beside).await?) {
            let Some(stamp) = stamp else {
                alone.push(key);
                continue;
            };
            let at: Option<u64> = stamp.parse().ok().filter(|at| *at > 0);
            if let (Kind::Customers | Kind::Resources, Some(at)) = (kind, at) {
                self.ages.add(now.saturating_sub(at) / 1_000);
            }
        }
        self.count_torn(redis, alone).await
    }

    async fn look_at_timestamps(
        &mut self,
        redis: &AdminClient,
        timestamps: Vec<String>,
    ) -> Result<(), StoreError> {
        let values: Vec<String> = timestamps
            .iter()
            .filter_map(|key| keys::value_of(key))
            .map(str::to_owned)
            .collect();
        let there = redis.exist(&values).await?;
        let alone = values.into_iter().zip(there);
        let alone = alone.filter(|(_, there)| !there).map(|(key, _)| key);
        self.count_torn(redis, alone.collect()).await
    }

    /// Reads incomplete pairs again, both keys at once: they may have been written or have expired
    /// meanwhile.
    async fn count_torn(
        &mut self,
        redis: &AdminClient,
        keys: Vec<String>,
    ) -> Result<(), StoreError> {
        let both: Vec<String> = keys
            .into_iter()
            .flat_map(|key| [keys::timestamp(&key), key])
            .collect();
        let there = redis.exist(&both).await?;
        let torn = there
            .chunks(2)
            .filter(|pair| pair[0] != pair[pair.len() - 1]);
        self.torn += torn.count() as u64;
        Ok(())
    }

    async fn measure(
        &mut self,
        redis: &AdminClient,
        measured: Vec<(Kind, String)>,
    ) -> Result<(), StoreError> {
        let keys: Vec<String> = measured.iter().map(|(_, key)| key.clone()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let bytes = self.bytes_of(redis, &keys).await?;
        for ((kind, _), bytes) in measured.iter().zip(bytes) {
            if let Some(bytes) = bytes {
                let (count, sum) = self.measured.entry(*kind).or_default();
                *count += 1;
                *sum += bytes;
            }
        }
        for ((kind, _), ttl) in measured.iter().zip(redis.ttls(&keys).await?) {
            match ttl {
                _ if !kind.has_timestamp() => {}
                Ttl::Secs(secs) => self.ttls.add(secs),
                Ttl::Forever => self.endless += 1,
                Ttl::Missing => {}
            }
        }
        Ok(())
    }

    async fn bytes_of(
        &mut self,
        redis: &AdminClient,
        keys: &[String],
    ) -> Result<Vec<Option<u64>>, StoreError> {
        if self.measure != Some(Measure::ValueLengths) {
            match redis.memory(keys).await {
                Ok(bytes) => {
                    self.measure = Some(Measure::MemoryUsage);
                    return Ok(bytes);
                }
                // The worker does not need this permission.
                Err(error) if error.needs_a_person() => self.measure = Some(Measure::ValueLengths),
                Err(error) => return Err(error),
            }
        }
        // Uses MGET, which the worker needs too. Only strings have a length here.
        let lengths = redis.values(keys).await?;
        Ok(lengths
            .into_iter()
            .map(|value| value.map(|value| value.len() as u64))
            .collect())
    }
}

/// Numbers, for their smallest, median and largest.
#[derive(Default)]
pub struct Spread {
    kept: Vec<u64>,
    count: u64,
    smallest: Option<u64>,
    largest: Option<u64>,
}

impl Spread {
    fn add(&mut self, number: u64) {
        self.count += 1;
        self.smallest = Some(self.smallest.map_or(number, |it| it.min(number)));
        self.largest = Some(self.largest.map_or(number, |it| it.max(number)));
        if self.kept.len() < MAX_SAMPLES {
            self.kept.push(number);
        } else if let Some(place) = usize::try_from(fastrand::u64(..self.count))
            .ok()
            .and_then(|place| self.kept.get_mut(place))
        {
            *place = number;
        }
    }

    pub fn median(&self) -> Option<u64> {
        let mut kept = self.kept.clone();
        kept.sort_unstable();
        kept.get(kept.len() / 2).copied()
    }

    pub fn smallest(&self) -> Option<u64> {
        self.smallest
    }

    pub fn largest(&self) -> Option<u64> {
        self.largest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_of_very_many_keeps_a_fair_sample() {
        let mut spread = Spread::default();
        for number in 0..=300_000 {
            spread.add(number);
        }
        assert_eq!(spread.kept.len(), MAX_SAMPLES);
        assert_eq!(
            (spread.smallest(), spread.largest()),
            (Some(0), Some(300_000))
        );
        assert!((140_000..160_000).contains(&spread.median().unwrap_or(0)));
    }
}
