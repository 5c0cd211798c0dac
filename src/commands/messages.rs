//! Messages as commands are given them, in a file or on standard input, and what they ask for.

mod picture;
mod understood;

pub use picture::{Foreseen, Picture, counts};
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
    /// The line on which it begins, from 1.
    pub line: usize,
    pub body: &'a str,
}

/// What SQS would tell beside the body.
#[derive(Debug, Clone, clap::Args)]
pub struct Beside {
    /// A message attribute; the worker reads `type` and `eventType`
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = read_attribute)]
    attributes: Vec<(String, String)>,
    /// When the messages were sent, as epoch milliseconds or ISO 8601. It is the time of events that
    /// have none of their own; at most 5 minutes ahead. Without it: now
    #[arg(long, value_name = "TIME", value_parser = when::written)]
    sent: Option<Millis>,
}

impl Beside {
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
        _ => Err("write name=value, neither of them empty".into()),
    }
}

fn read_attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = attribute(text)?;
    match name.as_str() {
        "type" | "eventType" => Ok((name, value)),
        _ => Err("the worker reads no attributes but type and eventType".into()),
    }
}

/// The text of a file, or of standard input, that holds a message at least.
pub fn read(path: &str) -> anyhow::Result<String> {
    let text = session::input(path)?;
    if text.trim().is_empty() {
        let name = if path == "-" { "standard input" } else { path };
        return Err(Failure::with(NO_INPUT, format!("{name} holds no message")));
    }
    Ok(text)
}

/// The messages of a text: JSON values one after the other, of as many lines as they like. Where
/// not all of it is JSON, each line is a message if the first is one; else the text as a whole.
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

/// Each line that is not blank, whatever it holds.
pub fn lines(text: &str) -> Vec<InputMessage<'_>> {
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    at_their_lines(text, lines.collect())
}

fn at_their_lines<'a>(text: &'a str, bodies: Vec<&'a str>) -> Vec<InputMessage<'a>> {
    let (mut line, mut seen) = (1, 0);
    let given = |(place, body): (usize, &'a str)| {
        // Each is a part of the text, and they come in its order.
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

/// What became of a message as a whole, in the words of the worker's metrics, and how many items
/// were written and stale.
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

    /// As the worker judges a message by all its steps.
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
                    Some("sent longer ago than the keys live, and nothing is stored".into())
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

    /// Someone should look at it.
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
