//! What a run tells.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::model::Wrong;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub seed: u64,
    pub minutes: f64,
    pub rate: u64,
    pub seconds_taken: u64,
    /// Where invalid messages end: in the queue's dead-letter queue, or the stream in Redis.
    pub dead_letters: &'static str,
    pub rounds: usize,
    pub messages: BTreeMap<String, u64>,
    pub published: u64,
    pub duplicates: u64,
    pub resent: u64,
    pub faults: BTreeMap<String, u64>,
    pub worker_faults: BTreeMap<String, u64>,
    pub received: u64,
    pub redeliveries: u64,
    pub applied: u64,
    pub stale: u64,
    pub skipped: u64,
    pub coalesced: u64,
    pub locked_retries: u64,
    pub acknowledged_late: u64,
    pub data_losses_noticed: u64,
    pub consumers_restarted: u64,
    pub sdk_writes: BTreeMap<&'static str, u64>,
    pub invalid_published: u64,
    pub invalid_dead_lettered: u64,
    /// Gone with Redis' data, when the stream was not read in time.
    pub invalid_lost_with_data: u64,
    /// Messages of unknown kinds that were found with the dead letters; all are acknowledged.
    pub unrecognised_kept: u64,
    /// Valid messages that exhausted the queue's own receive limit under faults; sent again.
    pub valid_redriven: u64,
    pub workers_started: u64,
    pub worker_exits: BTreeMap<String, u64>,
    pub max_rss_mib: u64,
    pub calm: Calm,
    pub keys_compared: u64,
    pub lost: u64,
    pub wrong: u64,
    pub torn: u64,
    /// From the end of a fault to the first message applied, in milliseconds.
    pub recovery_ms: BTreeMap<String, Recovery>,
    /// The same, after one fault: no other fault ended with it, and no worker ended, was killed or was frozen meanwhile.
    pub after_one_ms: Recovery,
    pub after_several_ms: Recovery,
    pub first_wrong: Vec<Wrong>,
    pub failures: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct Recovery {
    pub times: u64,
    pub median: u64,
    pub max: u64,
    #[serde(skip)]
    pub all: Vec<u64>,
}

/// What was tried between the rounds.
#[derive(Debug, Default, Serialize)]
pub struct Calm {
    /// Of ten messages each.
    pub bursts: u64,
    /// Owners whose keys were not compared, since a message of theirs was delivered twice.
    pub loose: u64,
    /// Of many owners, one of whom was locked.
    pub purges: u64,
}

impl Recovery {
    pub fn add(&mut self, ms: u64) {
        self.all.push(ms);
        self.all.sort_unstable();
        self.times = self.all.len() as u64;
        self.median = self.all[self.all.len() / 2];
        self.max = *self.all.last().unwrap();
    }

    fn text(&self) -> String {
        let slow = self.all.iter().filter(|ms| **ms > 2_000).count();
        let Self { times, max, .. } = self;
        format!("recovered {times} times, {slow} of them in more than 2 s, max {max} ms")
    }
}

impl Report {
    pub fn fail(&mut self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("chaos: FAILED: {}", what.lines().next().unwrap_or_default());
        self.failures.push(what);
    }

    pub fn judge(&mut self, when: &str, wrong: Vec<Wrong>) {
        for wrong in wrong {
            match wrong.what {
                "lost" => self.lost += 1,
                "torn" => self.torn += 1,
                _ => self.wrong += 1,
            }
            if self.first_wrong.len() < 12 {
                eprintln!(
                    "chaos: {when}: {} {}: expected {}, found {}",
                    wrong.what, wrong.key, wrong.expected, wrong.found
                );
                self.first_wrong.push(wrong);
            }
        }
    }

    pub fn passed(&self) -> bool {
        self.lost + self.wrong + self.torn == 0 && self.failures.is_empty()
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let list = |counts: &BTreeMap<String, u64>| {
            counts
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let mut line = |name: &str, what: String| {
            let _ = writeln!(text, "{name:<24}{what}");
        };
        line(
            "seed",
            format!(
                "{} ({} min and {} messages/s asked for, {} s taken, {} rounds)",
                self.seed, self.minutes, self.rate, self.seconds_taken, self.rounds
            ),
        );
        line(
            "messages",
            format!(
                "{} published, {} of them duplicates, {} sent again; {}",
                self.published,
                self.duplicates,
                self.resent,
                list(&self.messages)
            ),
        );
        line(
            "SDK writes",
            self.sdk_writes
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect::<Vec<_>>()
                .join(", "),
        );
        line("faults", list(&self.faults));
        line("worker faults", list(&self.worker_faults));
        line(
            "workers",
            format!(
                "{} started, {}; at most {} MiB",
                self.workers_started,
                list(&self.worker_exits),
                self.max_rss_mib
            ),
        );
        line(
            "received",
            format!(
                "{}, {} redeliveries; at least {} applied, {} stale, {} skipped, {} values coalesced, {} locked retries, {} acknowledged late",
                self.received,
                self.redeliveries,
                self.applied,
                self.stale,
                self.skipped,
                self.coalesced,
                self.locked_retries,
                self.acknowledged_late
            ),
        );
        line(
            "invalid",
            format!(
                "{} published, {} in the {}, {} lost with Redis' data; {} valid ones there too, {} of unknown kinds",
                self.invalid_published,
                self.invalid_dead_lettered,
                self.dead_letters,
                self.invalid_lost_with_data,
                self.valid_redriven,
                self.unrecognised_kept
            ),
        );
        let noticed = format!(
            "{} (by all workers together), consumers restarted {}",
            self.data_losses_noticed, self.consumers_restarted
        );
        line("data losses noticed", noticed);
        for (fault, recovery) in &self.recovery_ms {
            line(
                "recovery",
                format!(
                    "{fault}: {} times, median {} ms, max {} ms",
                    recovery.times, recovery.median, recovery.max
                ),
            );
        }
        line("after one fault", self.after_one_ms.text());
        line("after several at once", self.after_several_ms.text());
        line(
            "calm",
            format!(
                "{} bursts of ten, {} purges of many under a lock; {} owners not compared",
                self.calm.bursts, self.calm.purges, self.calm.loose
            ),
        );
        line("keys compared", self.keys_compared.to_string());
        line("lost", self.lost.to_string());
        line("wrong", self.wrong.to_string());
        line("torn", self.torn.to_string());
        for wrong in &self.first_wrong {
            let _ = writeln!(
                text,
                "\n{} {}\n  expected  {}\n  found     {}",
                wrong.what, wrong.key, wrong.expected, wrong.found
            );
            for event in &wrong.history {
                let _ = writeln!(text, "    {event}");
            }
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\nFAILED: {failure}");
        }
        text
    }
}
