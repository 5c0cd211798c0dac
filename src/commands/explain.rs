//! `explain`: explains what messages would do, and why.

mod report;

use anyhow::Context;
use entitlement_sync::config::{self, Config, Uses};
use entitlement_sync::message::Attributes;
use entitlement_sync::plan::Planner;

use super::messages::{self, InputMessage, Outcome, Picture, SqsAttributes, understand};
use super::output::{self, Format};
use super::{Ended, session};
pub use report::{Explained, Explanation};

/// Explain what messages would do, and why; nothing is written
#[derive(clap::Args)]
#[command(
    long_about = "Explains what messages would do, and why: their kind and how it was found, the wrappings that were removed,\n\
        the change in words, the times and their sources, and each key that would be written. If Redis is configured\n\
        (for example by REDIS_HOST), the command predicts the outcome of each key by the worker's rules: written,\n\
        stale, not cached, locked, or rejected by the tombstone of a purge.\n\n\
        Several messages are explained one after the other, each as if the earlier ones had been applied.\n\
        Nothing is ever written.",
    after_help = "Exit codes: 0 all messages can be applied; 1 at least one is invalid; 66 file not found.\n\n\
        Examples:\n\
        \x20 entitlement-sync explain event.json\n\
        \x20 entitlement-sync explain --no-redis --sent 2025-11-14T20:00:00Z event.json\n\
        \x20 entitlement-sync explain --attribute type=measurement.reported --json - < events.jsonl"
)]
pub struct Arguments {
    /// A file with one message, or JSON lines; - for standard input
    file: String,
    #[command(flatten)]
    attributes: SqsAttributes,
    /// Do not read Redis
    #[arg(long)]
    no_redis: bool,
    #[command(flatten)]
    format: Format,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let text = messages::read(&arguments.file)?;
    let (config, mut picture, redis) = look(arguments.no_redis).await?;
    let planner = session::planner(&config);
    let attributes = arguments.attributes.attributes();
    let mut all = Vec::new();
    for given in messages::split(&text) {
        all.push(one(given, &attributes, &planner, &mut picture).await?);
    }
    let explanation = Explanation {
        redis,
        messages: all,
    };
    if arguments.format.is_json() {
        output::json(&explanation)?;
    } else {
        explanation.print()?;
    }
    let valid = explanation.messages.iter().all(|it| it.valid);
    Ok(if valid { Ended::Well } else { Ended::Found })
}

/// Explains one message, after those that the picture already includes.
pub async fn one(
    given: InputMessage<'_>,
    attributes: &Attributes,
    planner: &Planner,
    picture: &mut Option<Picture>,
) -> anyhow::Result<Explained> {
    let mut explained = Explained::begin(given);
    let understood = match understand(given.body, attributes, planner) {
        Ok(understood) => understood,
        Err((kind, reason)) => {
            explained.refuse(kind, &reason);
            return Ok(explained);
        }
    };
    explained.understand(&understood, planner.ttl_secs);
    if understood.steps.is_empty() {
        explained.judge(&Outcome::of(understood.nothing(), None));
        return Ok(explained);
    }
    let Some(picture) = picture else {
        return Ok(explained);
    };
    let mut fates = Vec::new();
    for (number, step) in understood.steps.iter().enumerate() {
        let predicted = picture.predict(step).await;
        let predicted = predicted
            .context("cannot be read")
            .map_err(|error| session::redis_failure(&error))?;
        fates.push(messages::counts(&predicted.fate));
        explained.predict(number, step, predicted);
    }
    explained.judge(&Outcome::judge(fates));
    Ok(explained)
}

/// Returns the configuration, Redis if it is configured and answers, and a text on whether Redis was read.
pub async fn look(no_redis: bool) -> anyhow::Result<(Config, Option<Picture>, String)> {
    if no_redis {
        let config = session::configuration(&[])?;
        return Ok((config, None, "left alone".into()));
    }
    let config = match Config::load_for(config::environment(), &[Uses::Redis]) {
        Ok(_) => session::configuration(&[Uses::Redis])?,
        // Reports errors in the variables that do not concern Redis.
        Err(errors) => {
            let config = session::configuration(&[])?;
            let why = errors.0.join("; ");
            return Ok((config, None, format!("not looked at: {why}")));
        }
    };
    match session::redis(&config).await {
        Ok(redis) => {
            let picture = Picture::new(redis, &config.writes);
            Ok((config, Some(picture), "looked at".into()))
        }
        Err(error) => Ok((config, None, format!("not looked at: {error:#}"))),
    }
}
