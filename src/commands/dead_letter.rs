//! `dead-letter`: lists, shows, replays and deletes dead letters, in Redis, in a process in memory mode or in a
//! dead-letter queue.

mod letter;
mod place;
mod process;
mod replay;

use entitlement_sync::clock::now_ms;
use entitlement_sync::config::{self, Config, Uses};

use super::confirm::confirm;
use super::output::{self, Format, dim};
use super::{BAD_CONFIGURATION, Ended, Failure, session, when};
use letter::Letter;
use place::Place;
use process::Process;

/// List, show, replay or delete dead letters
///
/// Without --queue-url, they are the messages in the Redis stream <prefix>:dead-letter, which the worker writes if its
/// queue has no dead-letter queue. With STORE=memory the running process keeps them: run the command where it runs,
/// with its PORT and its ADMIN_TOKEN. With --queue-url, they are those of an SQS dead-letter queue.
#[derive(clap::Args)]
#[command(
    after_help = "Reading an SQS queue means receiving from it: each run raises the receive count of every message that it
reads, and hides these messages from other readers until it ends, for 60 s at most.

Examples:
  entitlement-sync dead-letter list
  entitlement-sync dead-letter show 1795426055851-0 > body.json
  entitlement-sync dead-letter replay 1795426055851-0 --body body.json
  entitlement-sync dead-letter replay --all --queue-url \"$DEAD_QUEUE_URL\" --dry-run
  entitlement-sync dead-letter purge --all --yes"
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    List(List),
    Show(Show),
    Replay(replay::Replay),
    Purge(Purge),
}

/// List dead letters: id, kind, reason, deliveries, age; never the body
#[derive(clap::Args)]
struct List {
    /// Maximum number of letters in the list
    #[arg(long, value_name = "LETTERS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    format: Format,
}

/// Print the body of one letter on standard output, and its details on standard error
#[derive(clap::Args)]
struct Show {
    /// Id from `list`, or the id of the message
    id: String,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    format: Format,
}

/// Delete letters permanently
#[derive(clap::Args)]
struct Purge {
    #[command(flatten)]
    which: Which,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    format: Format,
}

#[derive(clap::Args)]
struct Source {
    /// Use this SQS dead-letter queue instead of what the worker keeps
    #[arg(long, value_name = "URL")]
    queue_url: Option<String>,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Ids from `list`, or ids of messages
    ids: Vec<String>,
    /// All of them
    #[arg(long)]
    all: bool,
}

impl Which {
    /// Returns whether a letter is selected, and marks its id as found.
    fn takes(&self, letter: &Letter, missing: &mut Vec<String>) -> bool {
        let before = missing.len();
        missing.retain(|id| !letter.is_called(id));
        self.all || missing.len() < before
    }
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    match arguments.action {
        Action::List(list) => list.run().await,
        Action::Show(show) => show.run().await,
        Action::Replay(replay) => replay.run().await,
        Action::Purge(purge) => purge.run().await,
    }
}

impl Source {
    /// Returns the configuration for the place of the letters.
    fn configuration(&self) -> anyhow::Result<Config> {
        let Some(url) = &self.queue_url else {
            return session::configuration(&[Uses::Redis]);
        };
        // Replaces QUEUE_URL, so that region, endpoint and credentials follow from it.
        let mut environment = config::environment();
        environment.retain(|(name, _)| name != "QUEUE_URL");
        environment.push(("QUEUE_URL".into(), url.clone()));
        session::configuration_of(environment, &[Uses::Queue]).map_err(|error| {
            let text = error.to_string().replace("QUEUE_URL", "--queue-url");
            Failure::with(BAD_CONFIGURATION, text)
        })
    }

    async fn open(&self) -> anyhow::Result<Place> {
        let config = self.configuration()?;
        if self.queue_url.is_some() {
            return Ok(Place::queue(session::queue(&config).await));
        }
        if config.redis.is_none() {
            return Ok(Place::Process(Process::new(&config)?));
        }
        let redis = session::redis(&config).await?;
        Place::stream(redis, session::keys(&config).dead_letters()).await
    }
}

impl List {
    async fn run(self) -> anyhow::Result<Ended> {
        let mut place = self.source.open().await?;
        let listed = self.letters(&mut place).await;
        place.close().await;
        let (letters, is_all) = listed?;
        if self.format.is_json() {
            let letters: Vec<_> = letters.iter().map(Letter::to_json).collect();
            output::json(&serde_json::json!({"letters": letters, "is_all": is_all}))?;
            return Ok(Ended::Well);
        }
        if letters.is_empty() {
            output::line("no dead letters")?;
        }
        let rows: Vec<_> = letters.iter().map(Letter::row).collect();
        output::table(
            ["ID", "MESSAGE", "KIND", "DELIVERIES", "AGE", "REASON"],
            &rows,
        )?;
        if !is_all && letters.len() == self.limit as usize {
            let more = format!("more than {}: see --limit", self.limit);
            output::line(dim().apply_to(more))?;
        }
        Ok(Ended::Well)
    }

    /// Without their bodies.
    async fn letters(&self, place: &mut Place) -> anyhow::Result<(Vec<Letter>, bool)> {
        let mut letters = Vec::new();
        loop {
            let page = place.next().await?;
            if page.is_empty() {
                return Ok((letters, tell_if_cut_short(place)));
            }
            for letter in page {
                if letters.len() == self.limit as usize {
                    return Ok((letters, false));
                }
                letters.push(letter.without_body());
            }
        }
    }
}

impl Show {
    async fn run(self) -> anyhow::Result<Ended> {
        let mut place = self.source.open().await?;
        let found = place.find(&self.id).await;
        place.close().await;
        let Some(letter) = found? else {
            eprintln!("no dead letter has the id {}", self.id);
            return Ok(Ended::Found);
        };
        if self.format.is_json() {
            let mut json = letter.to_json();
            json["body"] = letter.body.clone().into();
            output::json(&json)?;
            return Ok(Ended::Well);
        }
        eprintln!("{}", letter.facts());
        output::line(&letter.body)?;
        Ok(Ended::Well)
    }
}

impl Purge {
    async fn run(self) -> anyhow::Result<Ended> {
        let question = match &self.which.ids[..] {
            [] => "Delete all dead letters permanently?".to_owned(),
            [id] => format!("Delete the dead letter {id} permanently?"),
            ids => format!("Delete {} dead letters permanently?", ids.len()),
        };
        if !self.dry_run && !confirm(&question, self.yes)? {
            eprintln!("nothing was deleted");
            return Ok(Ended::Found);
        }
        let mut place = self.source.open().await?;
        let mut purged = Vec::new();
        let mut missing = self.which.ids.clone();
        let ended = self.purge(&mut place, &mut purged, &mut missing).await;
        place.close().await;
        self.show(&purged, &missing)?;
        ended?;
        Ok(if missing.is_empty() {
            Ended::Well
        } else {
            Ended::Found
        })
    }

    async fn purge(
        &self,
        place: &mut Place,
        purged: &mut Vec<String>,
        missing: &mut Vec<String>,
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
            for letter in page {
                if self.which.takes(&letter, missing) {
                    if !self.dry_run {
                        place.delete(&letter).await?;
                    }
                    purged.push(letter.id);
                }
            }
        }
    }

    fn show(&self, purged: &[String], missing: &[String]) -> anyhow::Result<()> {
        if self.format.is_json() {
            return output::json(&serde_json::json!({
                "dry_run": self.dry_run, "deleted": purged, "not_found": missing,
            }));
        }
        let done = if self.dry_run {
            "would be deleted"
        } else {
            "deleted"
        };
        for id in purged {
            output::line(format!("{id} {done}"))?;
        }
        for id in missing {
            output::line(format!("{id} not found"))?;
        }
        if purged.is_empty() && missing.is_empty() {
            output::line("no dead letters")?;
        }
        Ok(())
    }
}

/// Returns whether all letters were read, and prints to standard error if not.
fn tell_if_cut_short(place: &Place) -> bool {
    let cut_short = place.cut_short();
    if let Some(why) = cut_short {
        eprintln!("entitlement-sync: {why}");
    }
    cut_short.is_none()
}

fn age(sent_at: Option<u64>) -> String {
    let ago = |sent: u64| {
        let age = i64::try_from(now_ms()).unwrap_or(i64::MAX) - i64::try_from(sent).unwrap_or(0);
        when::ago(age)
    };
    sent_at.map_or_else(|| "-".into(), ago)
}
