//! A dead letter, from the stream in Redis, from a process in memory mode, or from a dead-letter queue.

use std::borrow::Cow;

use entitlement_sync::memory;
use entitlement_sync::message::{self, Attributes, Change, Invalid, Millis};
use entitlement_sync::queue::HeldLetter;
use entitlement_sync::store::KeptLetter;
use serde_json::{Value, json};

use super::age;
use crate::commands::when;

#[derive(Debug, Clone)]
pub struct Letter {
    /// The id of the stream entry, of the letter in the process, or of the message.
    pub id: String,
    pub message_id: String,
    pub kind: String,
    /// Why the worker gave up on it, or the error that this version finds in it.
    pub reason: Option<String>,
    pub receive_count: u32,
    pub sent_at: Option<Millis>,
    pub body: String,
    /// The attribute `type` or `eventType`, if the body names no kind.
    pub attributes: Vec<(String, String)>,
    /// Of a FIFO queue.
    pub group: Option<String>,
    /// The receipt that deletes or returns the message; `None` elsewhere.
    pub receipt: Option<String>,
}

impl From<KeptLetter> for Letter {
    fn from(kept: KeptLetter) -> Self {
        // The worker accepts both names and keeps the value.
        let kind = kept.type_attribute.map(|kind| ("type".to_owned(), kind));
        Self {
            id: kept.id,
            message_id: kept.message_id,
            kind: kept.kind,
            reason: Some(kept.reason),
            receive_count: kept.receive_count,
            sent_at: kept.sent_at,
            body: kept.body,
            attributes: kind.into_iter().collect(),
            group: None,
            receipt: None,
        }
    }
}

impl From<memory::Letter> for Letter {
    fn from(kept: memory::Letter) -> Self {
        Self::from(KeptLetter {
            id: kept.id.to_string(),
            message_id: kept.message_id,
            reason: kept.reason,
            kind: kept.kind,
            receive_count: kept.receive_count,
            sent_at: kept.sent_at,
            body: kept.body,
            type_attribute: kept.type_attribute,
        })
    }
}

impl From<HeldLetter> for Letter {
    fn from(held: HeldLetter) -> Self {
        let delivery = held.delivery;
        let kind = message::read(&delivery.body, &delivery.attributes)
            .map_or_else(|unreadable| unreadable.kind, |reading| reading.kind);
        let mut letter = Self {
            id: delivery.message_id.clone(),
            kind: kind.as_str().into(),
            message_id: delivery.message_id,
            reason: None,
            receive_count: delivery.receive_count,
            sent_at: delivery.attributes.sent,
            body: delivery.body,
            attributes: held.attributes,
            group: held.group,
            receipt: Some(delivery.receipt),
        };
        let reason = letter.read(|_| ()).err();
        letter.reason = reason.map(|reason| reason.to_string());
        letter
    }
}

impl Letter {
    pub fn is_called(&self, id: &str) -> bool {
        self.id == id || self.message_id == id
    }

    pub fn without_body(self) -> Self {
        Self {
            body: String::new(),
            ..self
        }
    }

    /// What it asks for, as this version reads it.
    pub fn read<T>(&self, then: impl FnOnce(&[Change<'_>]) -> T) -> Result<T, Invalid> {
        self.read_as(&self.body, self.sent_at, then)
    }

    fn read_as<T>(
        &self,
        body: &str,
        sent: Option<Millis>,
        then: impl FnOnce(&[Change<'_>]) -> T,
    ) -> Result<T, Invalid> {
        let kind = |name: &str| {
            let mut found = self.attributes.iter();
            found
                .find(|(it, _)| it == name)
                .map(|(_, kind)| kind.clone())
        };
        let attributes = Attributes {
            kind: kind("type").or_else(|| kind("eventType")),
            sent,
        };
        let reading = message::read(body, &attributes).map_err(|unreadable| unreadable.reason)?;
        Ok(then(&reading.changes))
    }

    /// Returns the body to send. An event without a time of its own would count as sent now, and so as newer than it
    /// is: the body gets the time at which the event was first sent. `None` where that is not possible.
    pub fn body_to_send(&self) -> Option<Cow<'_, str>> {
        let time = |body: &str| self.read_as(body, None, time_of).ok();
        let Some(Some(0)) = time(&self.body) else {
            return Some(Cow::Borrowed(self.body.as_str()));
        };
        let sent = self.sent_at?;
        let rest = self.body.trim_start().strip_prefix('{')?;
        let stamped = format!("{{\"timestamp\":{sent},{rest}");
        (time(&stamped) == Some(Some(sent))).then_some(stamped.into())
    }

    pub fn row(&self) -> [String; 6] {
        [
            self.id.clone(),
            self.message_id.clone(),
            self.kind.clone(),
            self.receive_count.to_string(),
            age(self.sent_at),
            self.reason.clone().unwrap_or_else(|| "can be read".into()),
        ]
    }

    /// Returns all fields but the body, on one line.
    pub fn facts(&self) -> String {
        let sent = self.sent_at.and_then(|at| i64::try_from(at).ok());
        let attributes = self.attributes.iter();
        let attributes: String = attributes
            .map(|(name, value)| format!(", attribute {name}={value}"))
            .collect();
        format!(
            "message {}, {}{attributes}, sent {}, delivered {} times: {}",
            self.message_id,
            self.kind,
            sent.map_or_else(|| "at an unknown time".into(), when::point),
            self.receive_count,
            self.reason.as_deref().unwrap_or("can be read")
        )
    }

    /// All but the body.
    pub fn to_json(&self) -> Value {
        let attributes: serde_json::Map<String, Value> = self
            .attributes
            .iter()
            .map(|(name, value)| (name.clone(), value.clone().into()))
            .collect();
        json!({
            "id": self.id,
            "message_id": self.message_id,
            "kind": self.kind,
            "reason": self.reason,
            "receive_count": self.receive_count,
            "sent_at": self.sent_at,
            "group": self.group,
            "attributes": attributes,
        })
    }
}

/// Returns the earliest time of the changes; 0 where an event has no time, `None` where it needs no change.
fn time_of(changes: &[Change<'_>]) -> Option<Millis> {
    changes.iter().map(|change| change.state.at()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(body: &str, sent_at: Option<Millis>) -> Letter {
        Letter::from(KeptLetter {
            id: "1-0".into(),
            message_id: "m".into(),
            reason: "r".into(),
            kind: "purge".into(),
            receive_count: 5,
            sent_at,
            body: body.into(),
            type_attribute: None,
        })
    }

    #[test]
    fn an_event_without_a_time_keeps_the_one_of_its_first_sending() {
        const SENT: Option<Millis> = Some(1_763_000_000_000);
        for (body, sent) in [
            (
                r#" {"type":"CUSTOMER_DELETED","customerId":"a"}"#,
                r#"{"timestamp":1763000000000,"type":"CUSTOMER_DELETED","customerId":"a"}"#,
            ),
            (
                r#"{"type":"CUSTOMER_DELETED","data":{"customerId":"a"}}"#,
                r#"{"timestamp":1763000000000,"type":"CUSTOMER_DELETED","data":{"customerId":"a"}}"#,
            ),
        ] {
            let letter = kept(body, SENT);
            assert_eq!(letter.body_to_send().as_deref(), Some(sent));
            // Nothing says how old it is.
            assert_eq!(kept(body, None).body_to_send(), None);
        }
        for body in [
            r#"{"type":"CUSTOMER_DELETED","customerId":"a","timestamp":5}"#,
            r#"{"type":"CUSTOMER_DELETED"}"#,
            r#"{"type":"PACKAGE_PUBLISHED"}"#,
            "nonsense",
        ] {
            assert_eq!(kept(body, SENT).body_to_send().as_deref(), Some(body));
        }
        // A time that is unknown stands where the other would go.
        let unknown = r#"{"type":"CUSTOMER_DELETED","customerId":"a","timestamp":0}"#;
        assert_eq!(kept(unknown, SENT).body_to_send(), None);
    }

    #[test]
    fn the_attribute_that_named_the_kind_is_kept() {
        let kept = Letter::from(KeptLetter {
            type_attribute: Some("MEASUREMENT_REPORTED".into()),
            ..KeptLetter::default()
        });
        let expected = [("type".to_owned(), "MEASUREMENT_REPORTED".to_owned())];
        assert_eq!(kept.attributes, expected);
        assert!(kept.facts().contains("attribute type=MEASUREMENT_REPORTED"));
    }
}
