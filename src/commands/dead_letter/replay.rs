//! `dead-letter replay`: sends dead letters to the queue again, or applies them to Redis directly.

use std::borrow::Cow;
use std::path::PathBuf;

use entitlement_sync::clock::now_ms;
use entitlement_sync::config::Uses;
use entitlement_sync::plan::{Planner, Step};
use entitlement_sync::queue::{Outgoing, QueueErrorKind, Sender};
use entitlement_sync::store::AdminClient;
use serde_json::json;

use super::letter::Letter;
use super::place::Place;
use super::{Source, Which, tell_if_cut_short};
use crate::commands::messages::Outcome;
use crate::commands::output::{self, Format, bad, dim, good};
use crate::commands::purge::LOCKED_RETRIES;
use crate::commands::{Ended, Failure, USAGE, session};

/// Send letters to QUEUE_URL again, and delete each once it is sent
///
/// Letters that this version cannot read stay where they are, unless you pass --anyway. An event
/// without a time of its own gets the time at which it was first sent, so that it does not count
/// as newer than it is.
#[derive(clap::Args)]
#[command(
    after_help = "With --apply nothing is sent: the command applies each message to Redis as the worker would, and
deletes the letter once Redis holds it. This does not need sqs:SendMessage, which the owner of the queue may
not grant.

Exits with 1 if a letter was left."
)]
pub struct Replay {
    #[command(flatten)]
    which: Which,
    /// Apply letters to Redis directly instead of sending them
    #[arg(long)]
    apply: bool,
    /// Use this file as the body of one letter, for example a corrected body
    #[arg(long, value_name = "FILE", conflicts_with = "all")]
    body: Option<PathBuf>,
    /// Also send letters that this version cannot read (for a newer worker) and letters that would count as new
    #[arg(long, conflicts_with = "apply")]
    anyway: bool,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    format: Format,
}

enum Target {
    Queue {
        sender: Sender,
        is_fifo: bool,
    },
    Redis(AdminClient, Planner),
    /// Of a dry run.
    Nowhere,
}

#[derive(Clone)]
struct Replayed {
    id: String,
    outcome: &'static str,
    detail: Option<String>,
    is_done: bool,
}

impl Replay {
    pub async fn run(self) -> anyhow::Result<Ended> {
        let body = self.corrected_body()?;
        let target = self.target().await?;
        let mut place = self.source.open().await?;
        let mut missing = self.which.ids.clone();
        let mut replayed = Vec::new();
        let ended = self
            .replay_all(&mut place, &target, body, &mut missing, &mut replayed)
            .await;
        place.close().await;
        if let Target::Redis(redis, _) = target {
            redis.close().await;
        }
        self.show(&replayed, &missing)?;
        ended?;
        let is_well = missing.is_empty() && replayed.iter().all(|it| it.is_done);
        Ok(if is_well { Ended::Well } else { Ended::Found })
    }

    fn corrected_body(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.body else {
            return Ok(None);
        };
        if self.which.ids.len() != 1 {
            return Err(Failure::with(
                USAGE,
                "--body applies to one letter: pass one id",
            ));
        }
        let text = session::input(&path.to_string_lossy())?;
        // An editor adds a line break at the end of a file.
        Ok(Some(text.trim_end().to_owned()))
    }

    async fn target(&self) -> anyhow::Result<Target> {
        if self.dry_run {
            return Ok(Target::Nowhere);
        }
        if self.apply {
            let config = session::configuration(&[Uses::Redis])?;
            let redis = session::redis(&config).await?;
            return Ok(Target::Redis(redis, session::planner(&config)));
        }
        let config = session::configuration(&[Uses::Queue])?;
        if self.source.queue_url.as_deref() == Some(config.queue.url.as_str()) {
            let text = "QUEUE_URL and --queue-url name the same queue, so messages would be sent to the queue they are in: set QUEUE_URL to the queue that the worker reads";
            return Err(Failure::with(USAGE, text));
        }
        Ok(Target::Queue {
            sender: session::sender(&config).await,
            is_fifo: config.queue.is_fifo(),
        })
    }

    async fn replay_all(
        &self,
        place: &mut Place,
        target: &Target,
        body: Option<String>,
        missing: &mut Vec<String>,
        replayed: &mut Vec<Replayed>,
    ) -> anyhow::Result<()> {
        loop {
            if !self.which.all && missing.is_empty() {
                return Ok(());
            }
            let page = place.next().await?;
            if page.is_empty() {
                tell_if_cut_short(place);
                return Ok(());
            }
            for mut letter in page {
                if !self.which.takes(&letter, missing) {
                    continue;
                }
                if let Some(body) = &body {
                    letter.body.clone_from(body);
                }
                let outcome = self.replay(place, target, &letter).await?;
                replayed.push(outcome);
            }
        }
    }

    async fn replay(
        &self,
        place: &mut Place,
        target: &Target,
        letter: &Letter,
    ) -> anyhow::Result<Replayed> {
        let replayed = |outcome, detail: Option<String>, is_done| Replayed {
            id: letter.id.clone(),
            outcome,
            detail,
            is_done,
        };
        if let Err(reason) = letter.read(|_| ())
            && !self.anyway
        {
            return Ok(replayed("unreadable", Some(reason.to_string()), false));
        }
        if !self.apply && !self.anyway && letter.body_to_send().is_none() {
            let why = "it has no time of its own, and its body has no place for one, so it would count as new: \
                       use --apply, or --anyway";
            return Ok(replayed("undated", Some(why.into()), false));
        }
        let outcome = match target {
            Target::Nowhere if self.apply => replayed("would_be_applied", None, true),
            Target::Nowhere => replayed("would_be_sent", None, true),
            Target::Queue { sender, is_fifo } => {
                let message_id = send(sender, *is_fifo, letter).await?;
                place.leave_out(message_id.clone());
                replayed("sent", Some(format!("as message {message_id}")), true)
            }
            Target::Redis(redis, planner) => {
                let steps =
                    letter.read(|changes| planner.all_steps(changes, letter.sent_at, now_ms()));
                let (outcome, detail, is_done) = apply(redis, &steps?).await?;
                replayed(outcome, detail, is_done)
            }
        };
        if outcome.is_done && !self.dry_run {
            place.delete(letter).await.map_err(|error| {
                let code = error.downcast_ref::<Failure>().map(|it| it.code);
                let text = format!(
                    "letter {} was replayed but not deleted (a second replay is harmless): {error:#}",
                    letter.id
                );
                Failure::with(code.unwrap_or(crate::commands::FAILED), text)
            })?;
        }
        Ok(outcome)
    }

    fn show(&self, replayed: &[Replayed], missing: &[String]) -> anyhow::Result<()> {
        if self.format.is_json() {
            let letter =
                |it: &Replayed| json!({"id": it.id, "outcome": it.outcome, "detail": it.detail});
            let letters: Vec<_> = replayed.iter().map(letter).collect();
            return output::json(&json!({
                "dry_run": self.dry_run, "letters": letters, "not_found": missing,
            }));
        }
        let row = |it: &Replayed| {
            let outcome = it.outcome.replace('_', " ");
            let style = if it.is_done { good() } else { bad() };
            let detail = it.detail.clone().unwrap_or_default();
            [it.id.clone(), style.apply_to(outcome).to_string(), detail]
        };
        let mut rows: Vec<_> = replayed.iter().map(row).collect();
        rows.extend(missing.iter().map(|id| {
            let outcome = dim().apply_to("not found").to_string();
            [id.clone(), outcome, String::new()]
        }));
        if rows.is_empty() {
            return output::line("no dead letters");
        }
        output::table(["ID", "OUTCOME", "DETAIL"], &rows)
    }
}

async fn send(sender: &Sender, is_fifo: bool, letter: &Letter) -> anyhow::Result<String> {
    let body = letter.body_to_send();
    let body = body.unwrap_or(Cow::Borrowed(&letter.body));
    // What the worker keeps has no group. A new group does not block other messages.
    let group = letter.group.as_ref().unwrap_or(&letter.message_id);
    let message = Outgoing {
        body: body.into_owned(),
        attributes: letter.attributes.clone(),
        group: is_fifo.then(|| group.clone()),
        deduplication: is_fifo.then(|| format!("replay-{}-{}", now_ms(), fastrand::u64(..))),
    };
    sender.send_one(message).await.map_err(|error| {
        let failure = session::queue_failure(&error, error.kind);
        let advice = match error.kind {
            QueueErrorKind::AccessDenied => {
                ": allow sqs:SendMessage on QUEUE_URL, or use --apply, which does not need it"
            }
            _ => "",
        };
        let code = failure.downcast_ref::<Failure>().map(|it| it.code);
        Failure::with(
            code.unwrap_or(crate::commands::UNAVAILABLE),
            format!("letter {} was not sent: {failure:#}{advice}", letter.id),
        )
    })
}

/// Returns the outcome, its detail, and whether the letter is finished.
async fn apply(
    redis: &AdminClient,
    steps: &[Step],
) -> anyhow::Result<(&'static str, Option<String>, bool)> {
    let steps: Vec<&Step> = steps.iter().collect();
    let applied = redis.apply_when_unlocked(&steps, LOCKED_RETRIES).await;
    let applied = applied.map_err(|error| session::redis_failure(&error.into()))?;
    if applied.is_empty() {
        return Ok(("nothing_to_do", None, true));
    }
    let outcome = Outcome::judge(applied);
    Ok(match outcome.word {
        "locked" => (
            "locked",
            Some("locked by an SDK: run the command again".into()),
            false,
        ),
        "failed" => ("refused", outcome.reason, false),
        "applied" => ("applied", None, true),
        "stale" => ("stale", Some("Redis holds newer state".into()), true),
        _ => {
            let detail = "an SDK will load the whole customer";
            ("not_cached", Some(detail.into()), true)
        }
    })
}
