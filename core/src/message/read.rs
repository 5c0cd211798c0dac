//! Reads a body and its attributes: the changes, or why the message is invalid. The only entrance of this module.

use super::kind::Kind;
use super::{Change, Invalid, Millis, known, structure};

/// The attributes that SQS delivers with the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The message attribute `type`, or else `eventType`.
    pub kind: Option<String>,
    /// The system attribute `SentTimestamp`.
    pub sent: Option<Millis>,
}

/// A message that was understood, or that is known to need no change.
#[derive(Debug, PartialEq)]
pub struct Reading<'a> {
    /// The kind of the first change.
    pub kind: Kind,
    /// The kind, as written in the message; empty if it has none.
    pub name: String,
    pub named_by: NamedBy,
    /// The wrappings that were removed, from the outermost to the innermost.
    pub wrappings: Vec<Wrapping>,
    /// The trace id of the event, if it has one.
    pub trace_id: Option<String>,
    /// The changes, in the order to apply them; empty where the message needs no change.
    pub changes: Vec<Change<'a>>,
    /// A message that AWS sends by itself.
    pub notice: Option<Notice>,
    /// The unknown kind of an event in which no change was found: of the message, or of an entry in a list of events.
    /// There are changes too if other entries of the list have some.
    pub unrecognised: Option<String>,
}

/// A message that can never be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// `Other` where the message does not name a known kind.
    pub kind: Kind,
    pub reason: Invalid,
}

/// The part of a message that named its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// A field of the body.
    Field(&'static str),
    /// The message attribute `type` or `eventType`.
    Attribute,
    /// The one field under `data`.
    GraphQl,
    /// The name of the object that holds the event.
    Key,
    /// The structure of the message; its name is unknown or absent.
    Structure,
}

/// A wrapping that was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    Sns,
    Detail,
    Payload,
    Data,
    /// `data`, and the one field in it.
    GraphQl,
}

impl Wrapping {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sns => "SNS notification",
            Self::Detail => "EventBridge event",
            Self::Payload => "payload",
            Self::Data => "data",
            Self::GraphQl => "GraphQL data",
        }
    }
}

/// Messages that AWS sends by itself when a queue is connected to something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Notice {
    S3TestEvent,
    SubscriptionConfirmation,
    UnsubscribeConfirmation,
    SesSubscription,
}

impl Notice {
    /// Returns a description and advice.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::S3TestEvent => {
                "s3:TestEvent: an S3 bucket sends its notifications to this queue; remove that configuration if it is not intended"
            }
            Self::SubscriptionConfirmation => {
                "SubscriptionConfirmation: an SNS topic waits for its subscription to be confirmed; confirm it in SNS, or subscribe the queue with its own account"
            }
            Self::UnsubscribeConfirmation => {
                "UnsubscribeConfirmation: an SNS topic no longer sends to this queue; subscribe the queue again if that is not intended"
            }
            Self::SesSubscription => {
                "AmazonSnsSubscriptionSucceeded: SES sends its notifications to this queue; remove that configuration if it is not intended"
            }
        }
    }
}

/// Reads a message: known shapes in one pass, anything else by its structure.
pub fn read<'a>(body: &'a str, attributes: &Attributes) -> Result<Reading<'a>, Unreadable> {
    known::read(body, attributes).or_else(|first| structure::read(body, attributes, first))
}
