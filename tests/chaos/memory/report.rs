//! What a run tells.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use serde::Serialize;

use super::model::{Answer, Wrong};

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub seed: u64,
    pub minutes: f64,
    pub rate: u64,
    pub seconds_taken: u64,
    pub rounds: usize,
    /// Whether it could be full.
    pub disk: &'static str,
    pub published: u64,
    pub told: BTreeMap<&'static str, usize>,
    pub troubles: BTreeMap<String, u64>,
    pub strikes: BTreeMap<String, u64>,
    pub lives: u64,
    pub exits: BTreeMap<String, u64>,
    pub snapshots: u64,
    pub max_rss_mib: u64,
    /// While things failed.
    pub busy: Asked,
    /// Of everyone, with an empty queue.
    pub calm: Asked,
    /// Answers of purged customers from before the purge, all marked stale.
    pub purged_but_stale: u64,
    pub lost: u64,
    pub wrong: u64,
    pub first_wrong: Vec<Wrong>,
    pub failures: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
pub struct Asked {
    pub fresh: u64,
    pub stale: u64,
    pub cannot_tell: u64,
    /// It was away, or frozen.
    pub no_answer: u64,
}

impl Asked {
    pub fn count(&mut self, answer: &Answer) {
        match answer {
            Answer::Known { stale: false, .. } => self.fresh += 1,
            Answer::Known { stale: true, .. } => self.stale += 1,
            Answer::CannotTell => self.cannot_tell += 1,
            Answer::Odd(_) => {}
        }
    }

    pub fn add(&mut self, other: &Asked) {
        self.fresh += other.fresh;
        self.stale += other.stale;
        self.cannot_tell += other.cannot_tell;
        self.no_answer += other.no_answer;
    }

    fn text(&self) -> String {
        format!(
            "{} fresh, {} marked stale, {} \"cannot tell\", {} without an answer",
            self.fresh, self.stale, self.cannot_tell, self.no_answer
        )
    }
}

impl Report {
    pub fn note(&mut self, verdict: Result<bool, Wrong>) {
        match verdict {
            Ok(purged) => self.purged_but_stale += u64::from(purged),
            Err(wrong) => {
                match wrong.what {
                    "lost" => self.lost += 1,
                    _ => self.wrong += 1,
                }
                if self.first_wrong.len() < 12 {
                    self.first_wrong.push(wrong);
                }
            }
        }
    }

    /// Takes in what a part of the run found.
    pub fn add(&mut self, when: &str, part: Report) {
        for wrong in &part.first_wrong {
            eprintln!("chaos: {when}: {wrong:?}");
        }
        self.purged_but_stale += part.purged_but_stale;
        self.lost += part.lost;
        self.wrong += part.wrong;
        self.first_wrong.extend(part.first_wrong);
        self.first_wrong.truncate(12);
    }

    pub fn passed(&self) -> bool {
        self.lost + self.wrong == 0 && self.failures.is_empty()
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, what: String| {
            let _ = writeln!(text, "{name:<24}{what}");
        };
        let asked_for = format!(
            "{} min and {} messages/s asked for",
            self.minutes, self.rate
        );
        let took = format!("{} s taken, {} rounds", self.seconds_taken, self.rounds);
        line("seed", format!("{} ({asked_for}, {took})", self.seed));
        line(
            "messages",
            format!("{} published; {}", self.published, list(&self.told)),
        );
        line("disk", self.disk.to_owned());
        line("faults", list(&self.troubles));
        line("to the process", list(&self.strikes));
        let most = format!(
            "at least {} snapshots; at most {} MiB",
            self.snapshots, self.max_rss_mib
        );
        line(
            "process",
            format!("{} lives, {}; {most}", self.lives, list(&self.exits)),
        );
        line("asked in faults", self.busy.text());
        line("asked when calm", self.calm.text());
        line("purged but stale", self.purged_but_stale.to_string());
        line("lost", self.lost.to_string());
        line("wrong", self.wrong.to_string());
        for wrong in &self.first_wrong {
            let _ = writeln!(text, "\n{wrong:?}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\nFAILED: {failure}");
        }
        text
    }
}

fn list<K: Display, V: Display>(counts: &BTreeMap<K, V>) -> String {
    let counts = counts.iter().map(|(name, count)| format!("{name} {count}"));
    counts.collect::<Vec<_>>().join(", ")
}
