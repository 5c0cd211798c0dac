//! Defines the labels of metrics as enums, so that no id becomes a label.

use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

use crate::message::Kind;
use crate::queue::QueueErrorKind;

/// How the work on one message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Applied,
    Stale,
    Skipped,
    Expired,
    Ignored,
    Unrecognised,
    Invalid,
    Failed,
}

impl Outcome {
    pub const ALL: [Self; 8] = [
        Self::Applied,
        Self::Stale,
        Self::Skipped,
        Self::Expired,
        Self::Ignored,
        Self::Unrecognised,
        Self::Invalid,
        Self::Failed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Stale => "stale",
            Self::Skipped => "skipped",
            Self::Expired => "expired",
            Self::Ignored => "ignored",
            Self::Unrecognised => "unrecognised",
            Self::Invalid => "invalid",
            Self::Failed => "failed",
        }
    }
}

/// A call to the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Receive,
    Acknowledge,
    ChangeVisibility,
    Attributes,
}

impl Operation {
    pub(super) const ALL: [Self; 4] = [
        Self::Receive,
        Self::Acknowledge,
        Self::ChangeVisibility,
        Self::Attributes,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Acknowledge => "acknowledge",
            Self::ChangeVisibility => "change_visibility",
            Self::Attributes => "attributes",
        }
    }
}

macro_rules! label_value {
    ($($type:ty),+) => {
        $(impl EncodeLabelValue for $type {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
                encoder.write_str(self.as_str())
            }
        })+
    };
}
label_value!(Outcome, Operation, QueueErrorKind);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Processed {
    /// A [`Kind`], by its name.
    pub kind: &'static str,
    pub outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Call {
    pub operation: Operation,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallFailed {
    pub operation: Operation,
    pub error: QueueErrorKind,
}

impl Processed {
    pub(super) fn of(kind: Kind, outcome: Outcome) -> Self {
        Self {
            kind: kind.as_str(),
            outcome,
        }
    }
}
