//! `apply`: applies messages to Redis as the worker would.

use entitlement_sync::config::Uses;
use entitlement_sync::plan::Step;
use entitlement_sync::store::{AdminClient, Applied, StoreError};
use serde::Serialize;

use super::messages::{self, Outcome, Picture, SqsAttributes, understand};
use super::output::{self, Format, bad, doubtful, good};
use super::{Ended, session};

/// Apply messages to Redis, as the worker would
#[derive(clap::Args)]
#[command(
    long_about = "Applies messages to Redis by the worker's rules: it reads and plans each message, compares it with the stored\n\
        state and writes it in one atomic step. State older than the stored state is not written (stale). If an SDK\n\
        has locked a customer, the command retries CACHE_LOCK_RETRY_COUNT times. A message that fails does not stop\n\
        the others.\n\n\
        A message without a time of its own counts as sent now and replaces all stored state; --sent sets\n\
        another time.",
    after_help = "Exit codes: 0 all are applied, stale, skipped or need no change; 1 at least one is invalid, locked\n\
        or failed; 66 file not found; 69 Redis unreachable; 77 permission denied by Redis; 78 wrong configuration.\n\n\
        Examples:\n\
        \x20 entitlement-sync apply --dry-run event.json\n\
        \x20 entitlement-sync apply --json - < events.jsonl"
)]
pub struct Arguments {
    /// A file with one message, or JSON lines; - for standard input
    file: String,
    #[command(flatten)]
    attributes: SqsAttributes,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    messages: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    message: usize,
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    outcome: &'static str,
    written: u32,
    stale: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let text = messages::read(&arguments.file)?;
    let config = session::configuration(&[Uses::Redis])?;
    let planner = session::planner(&config);
    let redis = session::redis(&config).await?;
    let attributes = arguments.attributes.attributes();
    let mut picture = Picture::new(redis.clone(), &config.writes);
    let mut report = Report {
        dry_run: arguments.dry_run,
        messages: Vec::new(),
    };
    let mut ended = Ended::Well;
    let mut failure = None;
    let json = arguments.format.is_json();
    for given in messages::split(&text) {
        let (kind, outcome) = match understand(given.body, &attributes, &planner) {
            Err((kind, reason)) => (kind, Outcome::of("invalid", Some(reason.to_string()))),
            Ok(understood) if understood.steps.is_empty() => (
                Some(understood.kind),
                Outcome::of(understood.nothing(), None),
            ),
            Ok(understood) => {
                let steps: Vec<&Step> = understood.steps.iter().collect();
                let applied = match arguments.dry_run {
                    true => predict(&mut picture, &steps).await,
                    false => apply(&redis, &steps, config.writes.lock_retries).await,
                };
                let outcome = applied.map(Outcome::judge).unwrap_or_else(|error| {
                    let outcome = Outcome::of("failed", Some(error.to_string()));
                    failure = Some(error);
                    outcome
                });
                (Some(understood.kind), outcome)
            }
        };
        if outcome.is_trouble() {
            ended = Ended::Found;
        }
        let line = Line {
            message: given.number,
            line: given.line,
            kind: kind.map(|kind| kind.as_str()),
            outcome: outcome.word,
            written: outcome.written,
            stale: outcome.stale,
            reason: outcome.reason,
        };
        if !json {
            line.print(arguments.dry_run)?;
        }
        report.messages.push(line);
        if failure.is_some() {
            break;
        }
    }
    redis.close().await;
    if json {
        output::json(&report)?;
    }
    match failure {
        // Redis itself fails, so the other messages would fail too.
        Some(error) => Err(session::redis_failure(&error.into())),
        None => Ok(ended),
    }
}

async fn apply(
    redis: &AdminClient,
    steps: &[&Step],
    retries: u32,
) -> Result<Vec<Applied>, StoreError> {
    redis.apply_when_unlocked(steps, retries).await
}

async fn predict(picture: &mut Picture, steps: &[&Step]) -> Result<Vec<Applied>, StoreError> {
    let mut applied = Vec::with_capacity(steps.len());
    for step in steps {
        applied.push(messages::counts(&picture.predict(step).await?.fate));
    }
    Ok(applied)
}

impl Line {
    fn print(&self, dry_run: bool) -> anyhow::Result<()> {
        let style = match self.outcome {
            "applied" => good(),
            "invalid" | "locked" | "failed" => bad(),
            _ => doubtful(),
        };
        let kind = self
            .kind
            .map_or_else(String::new, |kind| format!("{kind} "));
        let would = if dry_run { "would be " } else { "" };
        let outcome = style.apply_to(self.outcome);
        let counts = match self.written + self.stale {
            0 => String::new(),
            _ => format!(": {} written, {} stale", self.written, self.stale),
        };
        let reason = self.reason.as_ref();
        let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
        output::line(format!(
            "message {} (line {}): {kind}{would}{outcome}{counts}{reason}",
            self.message, self.line
        ))
    }
}
