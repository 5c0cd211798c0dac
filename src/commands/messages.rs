//! Reads messages from a file or standard input, and judges their outcomes.

mod picture;
mod understood;

pub use picture::{Picture, Predicted, counts};
pub use understood::{Understood, understand};

use entitlement_sync::clock::now_ms;
use entitlement_sync::message::{Attributes, Millis};
use entitlement_sync::metrics;
use entitlement_sync::store::{Applied, Tally};
use serde_json::value::RawValue;

use super::{Failure, NO_INPUT, session, when};

/// One message of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InputMessage<'a> {
    /// From 1.
    pub number: usize,
    /// The line on which it starts, from 1.
    pub line: usize,
    pub body: &'a str,
}

/// The attributes that SQS would deliver with the body.
#[derive(Debug, Clone, clap::Args)]
pub struct SqsAttributes {
    /// A message attribute; the worker reads `type` and `eventType`
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = read_attribute)]
    attributes: Vec<(String, String)>,
    /// Time at which the messages were sent, as epoch milliseconds or ISO 8601; at most 5 minutes ahead. Events
    /// without a time of their own get this time. Without it: now
    #[arg(long, value_name = "TIME", value_parser = when::written)]
    sent: Option<Millis>,
}

impl SqsAttributes {
    pub fn attributes(&self) -> Attributes {
        let named = |wanted: &str| {
            let found = self.attributes.iter().find(|(name, _)| name == wanted);
            found.map(|(_, value)| value.clone())
        };
        Attributes {
            kind: named("type").or_else(|| named("eventType")),
            sent: Some(self.sent.unwrap_or_else(now_ms)),
        }
    }
}

/// `name=value`.
pub fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write name=value, with a name and a value".into()),
    }
}

fn read_attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = attribute(text)?;
    match name.as_str() {
        "type" | "eventType" => Ok((name, value)),
        _ => Err("the worker reads only the attributes type and eventType".into()),
    }
}

/// Reads a file or standard input, which must contain a message.
pub fn read(path: &str) -> anyhow::Result<String> {
    let text = session::input(path)?;
    if text.trim().is_empty() {
        let name = if path == "-" { "standard input" } else { path };
        return Err(Failure::with(
            NO_INPUT,
            format!("{name} contains no message"),
        ));
    }
    Ok(text)
}

/// Splits a text into messages: JSON values, each on one or more lines. If some of the text is not JSON, each line is a
/// message if the first line is JSON; else the whole text is one message.
pub fn split(text: &str) -> Vec<InputMessage<'_>> {
    let values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let values: Result<Vec<&str>, _> = values.map(|value| value.map(RawValue::get)).collect();
    let bodies = values.unwrap_or_else(|_| {
        let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
        match lines().next().map(serde_json::from_str::<&RawValue>) {
            Some(Ok(_)) => lines().collect(),
            _ => vec![text.trim()],
        }
    });
    at_their_lines(text, bodies)
}

/// Returns each line that is not blank as a message.
pub fn lines(text: &str) -> Vec<InputMessage<'_>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    at_their_lines(text, lines.collect())
}

fn at_their_lines<'a>(text: &'a str, bodies: Vec<&'a str>) -> Vec<InputMessage<'a>> {
    let (mut line, mut seen) = (1, 0);
    let given = |(place, body): (usize, &'a str)| {
        // Each value is a part of the text, in its order.
        let start = (body.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
        let between = text.as_bytes().get(seen..start).unwrap_or_default();
        line += between.iter().filter(|&&byte| byte == b'\n').count();
        seen = start.max(seen);
        InputMessage {
            number: place + 1,
            line,
            body,
        }
    };
    bodies.into_iter().enumerate().map(given).collect()
}

/// The outcome of a message, in the words of the worker's metrics, with the number of items written and stale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub word: &'static str,
    pub written: u32,
    pub stale: u32,
    pub reason: Option<String>,
}

impl Outcome {
    pub fn of(word: &'static str, reason: Option<String>) -> Self {
        Self {
            word,
            written: 0,
            stale: 0,
            reason,
        }
    }

    /// Judges a message by all its steps, as the worker does.
    pub fn judge(steps: impl IntoIterator<Item = Applied>) -> Self {
        let (mut tally, mut locked, mut failed) = (Tally::default(), false, None);
        for step in steps {
            tally.add(&step);
            match step {
                Applied::Locked => locked = true,
                Applied::Failed(error) => failed = Some(error.to_string()),
                Applied::Written { .. } | Applied::NotCached | Applied::Expired => {}
            }
        }
        let (word, reason) = if locked {
            (
                "locked",
                Some("an SDK holds its lock on the customer".into()),
            )
        } else if failed.is_some() {
            ("failed", failed)
        } else {
            let outcome = tally.outcome();
            let reason = match outcome {
                metrics::Outcome::Expired => {
                    Some("sent longer ago than the lifetime of keys, and nothing is stored".into())
                }
                metrics::Outcome::Skipped => Some("the customer is not cached".into()),
                _ => None,
            };
            (outcome.as_str(), reason)
        };
        Self {
            word,
            written: tally.written,
            stale: tally.stale,
            reason,
        }
    }

    /// Returns whether an operator should look at it.
    pub fn is_trouble(&self) -> bool {
        matches!(self.word, "invalid" | "locked" | "failed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(usize, &str)> {
        let given = split(text);
        given.iter().map(|it| (it.line, it.body)).collect()
    }

    #[test]
    fn messages_are_told_apart() {
        assert_eq!(found("{\"a\":\n1}\n"), [(1, "{\"a\":\n1}")]);
        assert_eq!(
            found("\n{\"a\":\n1}\n\n[2]"),
            [(2, "{\"a\":\n1}"), (5, "[2]")]
        );
        assert_eq!(found("{}\nno\n\n{}"), [(1, "{}"), (2, "no"), (4, "{}")]);
        assert_eq!(found("{\n \"a\": 1,\n}"), [(1, "{\n \"a\": 1,\n}")]);
        assert_eq!(found("not json\nat all"), [(1, "not json\nat all")]);
        assert_eq!(lines("a\n\n{}").len(), 2);
    }
}
