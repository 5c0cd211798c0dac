//! Anything at all may stand in a queue. Bodies made from the corpus (the fixtures) by wrapping,
//! cutting, splicing, flipping and swelling are parsed and planned: no input panics or takes much
//! memory, and whatever is accepted writes only keys of the layout and values that a reader can parse.
//!
//! `FUZZ_SEED` repeats a run, `FUZZ_ROUNDS` makes it longer.

use entitlement_sync::keys::Keys;
use entitlement_sync::message::{self, Attributes};
use entitlement_sync::plan;

use crate::delivery::fixtures;
use crate::delivery::memory::peak_rss_mib;
use crate::delivery::wrappings::wrap;

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// What JSON parsers and key layouts trip over.
const SPLICES: [&str; 24] = [
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "\u{0}",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "true",
    "-1",
    "1e999",
    "0.1e-7",
    "99999999999999999999999",
    ":f_",
    ":r_",
    "#timestamp",
    "\r\n",
    "😀",
    "{\"a\":",
    "\"customerId\":\"\",",
];

/// The largest body of SQS.
const LARGEST: usize = 1 << 20;
/// One body in so many is brought to that size.
const SWOLLEN: u32 = 1_500;
/// What the process may take for one body after the other.
const LIMIT_MIB: u64 = 192;

/// Repeats a part of a body until it is as large as can be.
fn swell(random: &mut fastrand::Rng, bytes: &mut Vec<u8>) {
    let from = random.usize(..bytes.len().max(1)).min(bytes.len());
    let to = (from + random.usize(1..60)).min(bytes.len());
    let part = bytes[from..to].to_vec();
    let times = (LARGEST.saturating_sub(bytes.len()) / part.len().max(1)).saturating_sub(1);
    bytes.splice(to..to, part.repeat(times)).for_each(drop);
}

fn mutate(random: &mut fastrand::Rng, corpus: &[String]) -> Vec<u8> {
    let mut body = corpus[random.usize(..corpus.len())].clone();
    let is_wrapped = random.u8(..4) == 0;
    if is_wrapped && serde_json::from_str::<serde_json::Value>(&body).is_ok() {
        for _ in 0..random.usize(1..8) {
            body = wrap(random, body, true).0;
        }
    }
    let mut bytes = body.into_bytes();
    let is_swollen = random.u32(..SWOLLEN) == 0;
    if is_swollen {
        swell(random, &mut bytes);
    }
    // Most of what is wrapped and damaged cannot be read; some of it stays whole.
    let least = usize::from(!is_wrapped && !is_swollen);
    for _ in 0..random.usize(least..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..6) {
            0 => bytes.truncate(at),
            1 => bytes
                .splice(at..at, SPLICES[random.usize(..SPLICES.len())].bytes())
                .for_each(drop),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            3 => {
                let end = (at + random.usize(..40)).min(bytes.len());
                bytes.drain(at..end);
            }
            4 => {
                let other = corpus[random.usize(..corpus.len())].as_bytes();
                let from = random.usize(..other.len());
                let to = (from + random.usize(..200)).min(other.len());
                bytes
                    .splice(at..at, other[from..to].iter().copied())
                    .for_each(drop);
            }
            _ => {
                let from = random.usize(..=bytes.len());
                let copy = bytes[from.min(at)..from.max(at)].to_vec();
                bytes.splice(at..at, copy).for_each(drop);
            }
        }
    }
    bytes
}

#[test]
fn no_body_panics_and_no_accepted_one_writes_outside_the_layout() {
    let seed = number("FUZZ_SEED", 20_261_123);
    let rounds = number("FUZZ_ROUNDS", 60_000);
    let mut random = fastrand::Rng::with_seed(seed);
    let corpus: Vec<String> = fixtures::load()
        .iter()
        .map(fixtures::Fixture::body)
        .collect();
    let keys = Keys::new("P");
    let (mut accepted, mut found_by_structure) = (0, 0);
    for round in 0..rounds {
        let bytes = mutate(&mut random, &corpus);
        let Ok(body) = std::str::from_utf8(&bytes) else {
            continue;
        };
        let attributes = Attributes {
            sent: Some(1_764_000_000_000),
            ..Attributes::default()
        };
        let Ok(reading) = message::read(body, &attributes) else {
            continue;
        };
        let steps = |change: &message::Change<'_>| {
            plan::steps(&keys, &change.state, plan::Rules::default())
        };
        let steps: Vec<plan::Step> = reading.changes.iter().flat_map(steps).collect();
        for step in &steps {
            assert!(step.lock.starts_with("P-") && step.tombstone.ends_with("#purged"));
            for item in &step.items {
                let context = || format!("seed {seed}, round {round}: {body}");
                assert!(item.key.starts_with("P:c_"), "{}", context());
                assert!(!item.key.ends_with("#timestamp"), "{}", context());
                if item.value.is_empty() {
                    assert_eq!(step.action, plan::Action::Purge);
                } else {
                    let value: Result<serde_json::Value, _> = serde_json::from_str(&item.value);
                    assert!(value.is_ok_and(|value| value.is_object()), "{}", context());
                }
            }
        }
        accepted += u64::from(!steps.is_empty());
        let is_searched = reading.changes.iter().any(|change| change.path.is_some());
        found_by_structure += u64::from(is_searched);
    }
    assert!(
        accepted > rounds / 50,
        "only {accepted} of {rounds} got through: the corpus is no use"
    );
    assert!(found_by_structure > rounds / 100, "{found_by_structure}");
    let peak = peak_rss_mib(std::process::id());
    println!("{accepted} accepted, {found_by_structure} by structure, {peak} MiB");
    assert!(peak < LIMIT_MIB, "peak resident memory was {peak} MiB");
}
