//! `peek`: shows messages of the real queue and returns them to it.

mod taken;

use anyhow::Context;
use entitlement_sync::config::{Config, Uses};
use entitlement_sync::message::skeleton;
use entitlement_sync::plan::Planner;
use entitlement_sync::queue::{HeldLetter, Queue, QueueErrorKind};
use serde::Serialize;
use serde_json::{Value, json};

use super::bulk::stop_on_signal;
use super::confirm::confirm;
use super::explain::{self, Explained, Explanation};
use super::messages::{InputMessage, Picture};
use super::output::{self, Format};
use super::{Ended, Failure, INTERRUPTED, USAGE, session, when};
use taken::{Taken, take};

/// Show messages of the queue and return them to it
#[derive(clap::Args)]
#[command(
    long_about = "Receives messages from QUEUE_URL, returns them, and then explains each as `explain` does: how the worker reads\n\
        it, and what the worker would change in Redis. Nothing is written, sent or deleted.\n\n\
        SQS cannot show messages without receiving them. The receive count of each message rises by one, and the\n\
        message is hidden from workers until the command has received all, for 30 s at most. A queue with a redrive\n\
        policy moves a message to its dead-letter queue after a number of deliveries. So the command refuses a queue\n\
        that allows one delivery, and stops with a warning at a message whose last delivery this was.\n\n\
        --skeleton prints only names and JSON types, so you can send the output to the maintainers when the worker does\n\
        not recognise a message. A name that may be data, for example the id of a feature, is printed as `?`.",
    after_help = "Exit codes: 0 all messages are recognised, or there is none; 1 at least one is invalid or unrecognised, was delivered\n\
        for the last time, or could not be returned; 2 no terminal for the prompt, or a queue that allows one delivery;\n\
        69 queue unreachable; 77 permission denied by the queue; 78 wrong configuration; 130 stopped by a signal, after\n\
        all messages were returned.\n\n\
        Examples:\n\
        \x20 entitlement-sync peek\n\
        \x20 entitlement-sync peek --count 50 --yes --json\n\
        \x20 entitlement-sync peek --skeleton --yes > skeletons.txt"
)]
pub struct Arguments {
    /// Maximum number of messages
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    count: u16,
    /// Print only names and JSON types of the bodies, never values
    #[arg(long)]
    skeleton: bool,
    /// Do not read Redis
    #[arg(long)]
    no_redis: bool,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    format: Format,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let config = session::configuration(&[Uses::Queue])?;
    let queue = session::queue(&config).await;
    let limit = match queue.settings().await {
        Ok(settings) => Limit::Known(settings.max_receive_count),
        Err(error) if error.kind == QueueErrorKind::AccessDenied => Limit::Unknown,
        Err(error) => return Err(session::queue_failure(&error, error.kind)),
    };
    if matches!(limit, Limit::Known(Some(0..=1))) {
        let text = "the queue moves each message to its dead-letter queue after one delivery, so whatever is looked at would \
                    never reach a worker; raise maxReceiveCount in its redrive policy";
        return Err(Failure::with(USAGE, text));
    }
    if !confirm(&limit.question(arguments.count), arguments.yes)? {
        eprintln!("nothing was received");
        return Ok(Ended::Found);
    }
    let stop = stop_on_signal()?;
    let taken = take(&queue, usize::from(arguments.count), limit.most(), &stop).await?;
    for warning in &taken.warnings {
        eprintln!("entitlement-sync: {warning}");
    }
    if stop.is_cancelled() {
        return Err(Failure::with(
            INTERRUPTED,
            "stopped; all messages received were returned",
        ));
    }
    if taken.messages.is_empty() && !arguments.format.is_json() {
        eprintln!("the queue delivered no message: it is empty, or all its messages are in flight");
    }
    let ended = match arguments.skeleton {
        true => show_skeletons(&taken.messages, arguments.format),
        false => explain_all(&taken, &config, &arguments).await,
    }?;
    Ok(if taken.warnings.is_empty() {
        ended
    } else {
        Ended::Found
    })
}

/// The number of deliveries after which the queue moves a message to its dead-letter queue.
#[derive(Clone, Copy)]
enum Limit {
    Known(Option<u32>),
    /// The permission to read the queue's attributes is missing.
    Unknown,
}

impl Limit {
    fn most(self) -> Option<u32> {
        match self {
            Self::Known(most) => most,
            Self::Unknown => None,
        }
    }

    fn question(self, count: u16) -> String {
        let of_limit = match self {
            Self::Known(Some(most)) => format!(
                " The queue moves a message to its dead-letter queue after {most} deliveries, and this counts as one."
            ),
            Self::Known(None) => String::new(),
            Self::Unknown => {
                " Whether the queue has a redrive policy is unknown (sqs:GetQueueAttributes is not \
                              allowed); if it has one, this counts as one of its deliveries."
                    .into()
            }
        };
        format!(
            "Receive up to {count} messages of QUEUE_URL and return them? The receive count of each rises by \
             one.{of_limit}"
        )
    }
}

/// A message with the attributes of its delivery.
#[derive(Serialize)]
struct Delivered {
    message_id: String,
    receive_count: u32,
    sent_at: Option<u64>,
}

impl Delivered {
    fn of(letter: &HeldLetter) -> Self {
        Self {
            message_id: letter.delivery.message_id.clone(),
            receive_count: letter.delivery.receive_count,
            sent_at: letter.delivery.attributes.sent,
        }
    }

    fn words(&self, number: usize) -> String {
        let sent = self.sent_at.and_then(|at| i64::try_from(at).ok());
        let sent = sent.map_or_else(|| "at an unknown time".into(), when::point);
        format!(
            "message {number} (delivery {}, sent {sent})",
            self.receive_count
        )
    }
}

async fn explain_all(
    taken: &Taken,
    config: &Config,
    arguments: &Arguments,
) -> anyhow::Result<Ended> {
    let (mut picture, redis) = match arguments.no_redis {
        true => (None, "left alone".into()),
        false => redis().await,
    };
    let planner = session::planner(config);
    let mut delivered = Vec::new();
    let mut messages = Vec::new();
    for (place, letter) in taken.messages.iter().enumerate() {
        let explained = explain(place + 1, letter, &planner, &mut picture);
        let mut explained = explained.await?;
        let of = Delivered::of(letter);
        explained.call(of.words(place + 1));
        messages.push(explained);
        delivered.push(of);
    }
    let explanation = Explanation { redis, messages };
    if arguments.format.is_json() {
        let mut json = serde_json::to_value(&explanation)?;
        let each = json["messages"].as_array_mut().into_iter().flatten();
        for (message, of) in each.zip(&delivered) {
            if let (Value::Object(message), Value::Object(of)) =
                (message, serde_json::to_value(of)?)
            {
                message.remove("line");
                message.extend(of);
            }
        }
        output::json(&json)?;
    } else if !taken.messages.is_empty() {
        explanation.print()?;
    }
    let is_well = |it: &Explained| it.valid && !it.is_unrecognised();
    let is_well = explanation.messages.iter().all(is_well);
    Ok(if is_well { Ended::Well } else { Ended::Found })
}

/// Returns Redis if it is configured and answers, and a text on whether it was read.
async fn redis() -> (Option<Picture>, String) {
    match explain::look(false).await {
        Ok((_, picture, redis)) => (picture, redis),
        Err(error) => (None, format!("not looked at: {error:#}")),
    }
}

async fn explain(
    number: usize,
    letter: &HeldLetter,
    planner: &Planner,
    picture: &mut Option<Picture>,
) -> anyhow::Result<Explained> {
    let given = InputMessage {
        number,
        line: 0,
        body: &letter.delivery.body,
    };
    let explained = explain::one(given, &letter.delivery.attributes, planner, picture);
    explained
        .await
        .context("all messages received were returned")
}

fn show_skeletons(messages: &[HeldLetter], format: Format) -> anyhow::Result<Ended> {
    let bodies = messages.iter().map(|it| skeleton(&it.delivery.body));
    let names = |letter: &HeldLetter| {
        let names = letter.attributes.iter();
        names.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    if format.is_json() {
        let skeletons: Vec<Value> = bodies
            .zip(messages)
            .map(|(body, letter)| json!({"attributes": names(letter), "body": body}))
            .collect();
        output::json(&skeletons)?;
        return Ok(Ended::Well);
    }
    for (body, letter) in bodies.zip(messages) {
        let attributes = match names(letter).as_slice() {
            [] => String::new(),
            names => format!(" (attributes {})", names.join(", ")),
        };
        output::line(format!("{body}{attributes}"))?;
    }
    Ok(Ended::Well)
}
