//! `publish`: sends messages to the queue.

use std::num::NonZeroU32;

use entitlement_sync::config::Uses;
use entitlement_sync::keys::Keys;
use entitlement_sync::message::Attributes;
use entitlement_sync::plan::{Planner, Rules};
use entitlement_sync::queue::{Outgoing, QueueError, QueueErrorKind, Sender};
use serde::Serialize;
use serde_json::value::RawValue;

use super::bulk::{Pace, rate};
use super::messages::{self, InputMessage, understand};
use super::output::{self, Format};
use super::progress::Progress;
use super::{Ended, Failure, USAGE, session};

/// Send messages to QUEUE_URL
#[derive(clap::Args)]
#[command(
    long_about = "Sends messages to QUEUE_URL, ten (and 1 MiB) at a time: for tests, demonstrations, and to resend kept messages.\n\
        It retries messages that the queue fails to accept. Nothing is sent if a message is larger than the queue\n\
        accepts, or is not JSON; --raw also sends text that is not JSON.\n\n\
        A queue in AWS is probably in production, so it needs --yes. In a FIFO queue each message gets its customer\n\
        as the group and a unique deduplication id, so that --repeat sends no duplicates.",
    after_help = "Needs sqs:SendMessage. Exit codes: 0 all were sent; 1 some were not sent, or are invalid; 2 a queue in AWS\n\
        without --yes; 66 file not found; 69 queue unreachable; 77 permission denied by the queue; 78 wrong configuration.\n\n\
        Examples:\n\
        \x20 entitlement-sync publish event.json\n\
        \x20 entitlement-sync publish --repeat 1000 --rate 50 events.jsonl\n\
        \x20 jq -c .body kept.jsonl | entitlement-sync publish --yes -"
)]
pub struct Arguments {
    /// A file with one message, or JSON lines; - for standard input
    file: String,
    /// Send all messages N times
    #[arg(long, value_name = "N", default_value = "1")]
    repeat: NonZeroU32,
    /// Maximum messages per second
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// Message group. Without it, in a FIFO queue: the id of the customer, if the message is valid
    #[arg(long)]
    group: Option<String>,
    /// Message attribute for each message
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = messages::attribute)]
    attributes: Vec<(String, String)>,
    /// Send each line unchanged, even if it is not JSON
    #[arg(long)]
    raw: bool,
    /// Send to a queue in AWS
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    format: Format,
}

/// The group of messages in a FIFO queue whose customer is unknown.
const FALLBACK_GROUP: &str = "entitlement-sync";

#[derive(Serialize, Default)]
struct Report {
    sent: u64,
    failed: u64,
    bytes: u64,
    /// Error codes of the queue for the messages that failed.
    reasons: std::collections::BTreeMap<String, u64>,
}

pub async fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let text = messages::read(&arguments.file)?;
    let config = session::configuration(&[Uses::Queue])?;
    if config.queue.is_of_aws() && !arguments.yes {
        let host = config.queue.endpoint.host_str().unwrap_or_default();
        let what = format!(
            "{host} belongs to AWS, so the queue may be in production: pass --yes to send to it"
        );
        return Err(Failure::with(USAGE, what));
    }
    let given = match arguments.raw {
        true => messages::lines(&text),
        false => messages::split(&text),
    };
    let unfit = unfit(&given, &arguments);
    if !unfit.is_empty() {
        for what in unfit {
            eprintln!("entitlement-sync: {what}");
        }
        eprintln!("entitlement-sync: nothing was sent");
        return Ok(Ended::Found);
    }
    let messages: Vec<Outgoing> = given
        .iter()
        .map(|given| outgoing(given, &arguments, config.queue.is_fifo()))
        .collect();
    let sender = session::sender(&config).await;
    let (report, failure) = send_all(&sender, messages, &arguments, config.queue.is_fifo()).await?;
    if arguments.format.is_json() {
        output::json(&report)?;
    } else {
        report.print()?;
    }
    match failure {
        Some(error) => Err(queue_failure(&error)),
        None if report.failed > 0 => Ok(Ended::Found),
        None => Ok(Ended::Well),
    }
}

async fn send_all(
    sender: &Sender,
    mut messages: Vec<Outgoing>,
    arguments: &Arguments,
    fifo: bool,
) -> anyhow::Result<(Report, Option<QueueError>)> {
    let total = messages.len() as u64 * u64::from(arguments.repeat.get());
    let mut progress = Progress::start("sent", Some(total));
    let pace = Pace::new(arguments.rate);
    // Unique to this run, so that neither a repetition nor the next run is a duplicate.
    let run = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
    let mut report = Report::default();
    let mut number = 0_u64;
    for _ in 0..arguments.repeat.get() {
        if fifo {
            for message in &mut messages {
                number += 1;
                message.deduplication = Some(format!("{run}-{number}"));
            }
        }
        let mut rest = &messages[..];
        while !rest.is_empty() {
            // At most the messages of one second at once.
            let most = arguments
                .rate
                .map_or(10, |rate| rate.clamp(1.0, 10.0) as usize);
            let fitting = Sender::fitting(&rest[..rest.len().min(most)]);
            let (call, later) = rest.split_at(fitting);
            for _ in call {
                pace.turn().await;
            }
            let refused = match sender.send(call).await {
                Ok(sent) => sent.refused,
                Err(error) => {
                    progress.finish();
                    return Ok((report, Some(error)));
                }
            };
            let bytes: usize = call.iter().map(Outgoing::bytes).sum();
            let lost = refused.iter().filter_map(|it| call.get(it.position));
            let lost: usize = lost.map(Outgoing::bytes).sum();
            report.bytes += (bytes - lost) as u64;
            report.sent += (call.len() - refused.len()) as u64;
            report.failed += refused.len() as u64;
            for entry in refused {
                *report.reasons.entry(entry.code).or_default() += 1;
            }
            progress.add(call.len() as u64);
            rest = later;
        }
    }
    progress.finish();
    Ok((report, None))
}

/// Returns why a message must not be sent.
fn unfit(given: &[InputMessage<'_>], arguments: &Arguments) -> Vec<String> {
    let beside: usize = arguments
        .attributes
        .iter()
        .map(|(name, value)| name.len() + value.len() + 6)
        .sum();
    let reason = |given: &InputMessage<'_>| {
        let place = format!("message {} (line {})", given.number, given.line);
        let json = || serde_json::from_str::<&RawValue>(given.body).err();
        if given.body.len() + beside > Sender::MAX_MESSAGE_BYTES {
            return Some(format!("{place} is larger than 1 MiB, the limit of SQS"));
        }
        if arguments.raw {
            return None;
        }
        json()
            .map(|error| format!("{place} is not JSON ({error}): pass --raw to send it unchanged"))
    };
    given.iter().filter_map(reason).collect()
}

fn outgoing(given: &InputMessage<'_>, arguments: &Arguments, fifo: bool) -> Outgoing {
    let group = arguments.group.clone().or_else(|| {
        fifo.then(|| {
            group_of(given.body, &arguments.attributes).unwrap_or_else(|| FALLBACK_GROUP.into())
        })
    });
    Outgoing {
        body: given.body.to_owned(),
        attributes: arguments.attributes.clone(),
        group,
        deduplication: None,
    }
}

/// Returns the customer, if the message is valid and SQS accepts the id as a group.
fn group_of(body: &str, attributes: &[(String, String)]) -> Option<String> {
    let named = |wanted| attributes.iter().find(|(name, _)| name == wanted);
    let kind = named("type").or_else(|| named("eventType"));
    let attributes = Attributes {
        kind: kind.map(|(_, value)| value.clone()),
        sent: None,
    };
    let planner = Planner {
        keys: Keys::new(""),
        rules: Rules::default(),
        ttl_secs: None,
    };
    let customer = understand(body, &attributes, &planner).ok()?.customer?;
    let fits = customer.len() <= 128 && customer.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then_some(customer)
}

fn queue_failure(error: &QueueError) -> anyhow::Error {
    let advice = match error.kind {
        QueueErrorKind::AccessDenied => "allow sqs:SendMessage on the queue",
        QueueErrorKind::Kms => "allow kms:GenerateDataKey and kms:Decrypt on the key of the queue",
        QueueErrorKind::Throttled => "use a lower --rate",
        QueueErrorKind::Failed => "try again later",
        kind => kind.advice(),
    };
    session::queue_failure(format_args!("{error}: {advice}"), error.kind)
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        output::line(format!(
            "{} sent ({} bytes), {} failed",
            self.sent, self.bytes, self.failed
        ))?;
        for (code, count) in &self.reasons {
            output::line(format!("  {count} by {code}"))?;
        }
        Ok(())
    }
}
