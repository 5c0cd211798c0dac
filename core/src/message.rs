//! Reads messages: bodies to [`StateChange`]s. No I/O.
//!
//! The vendor does not publish its SQS bodies. [`read`] takes the public shapes of the same events in
//! one fast pass (`known`), and else searches any JSON for what carries a change (`structure`).
//! docs/compatibility.md lists the shapes with their sources.

mod change;
mod entitlement;
mod fields;
mod ids;
mod kind;
mod known;
mod owned;
mod read;
mod size;
mod skeleton;
mod structure;
mod terms;
mod time;
mod wire;

pub use kind::Kind;
pub use read::{Attributes, NamedBy, Notice, Reading, Unreadable, Wrapping, read};
pub use skeleton::skeleton;
pub use terms::{FeatureType, MeterType, Number};
pub use time::{iso, read_time};

use std::borrow::Cow;

use crate::keys::Owner;

/// Milliseconds since the epoch, at the source of the state.
pub type Millis = u64;

/// What one message asks of Redis.
#[derive(Debug, PartialEq)]
pub enum StateChange<'a> {
    /// The whole entitlements of one owner, replacing what was there.
    SetCustomer {
        owner: Entity<'a>,
        entitlements: Vec<Entitlement<'a>>,
        /// The credit entitlements of the list, which the layout of entitlements cannot hold.
        credits: Vec<Credit<'a>>,
        access_denied_reason: Option<Cow<'a, str>>,
        at: Millis,
    },
    /// The usage of one feature or currency of an owner.
    UpdateUsage {
        owner: Entity<'a>,
        of: Metered<'a>,
        usage: Usage<'a>,
        at: Millis,
    },
    /// Every owner named is to be forgotten, and loaded afresh by whoever asks next.
    Purge { owners: Vec<Entity<'a>>, at: Millis },
}

impl StateChange<'_> {
    /// When the change was true at its source.
    pub fn at(&self) -> Millis {
        match self {
            Self::SetCustomer { at, .. }
            | Self::UpdateUsage { at, .. }
            | Self::Purge { at, .. } => *at,
        }
    }

    fn set_at(&mut self, time: Millis) {
        match self {
            Self::SetCustomer { at, .. }
            | Self::UpdateUsage { at, .. }
            | Self::Purge { at, .. } => *at = time,
        }
    }
}

/// One change of a message, and how it was understood.
#[derive(Debug, PartialEq)]
pub struct Change<'a> {
    pub state: StateChange<'a>,
    /// Where its time was found.
    pub time: TimeSource,
    /// How many of its times were ahead of the message and were taken as the time of sending.
    pub ahead: u32,
    /// Where in the body it was found by structure; `None` for a known shape.
    pub path: Option<String>,
}

/// Where the time of a change was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeSource {
    EntitlementsUpdatedAt,
    /// The newest `entitlementUpdatedAt` of the list.
    NewestEntitlement,
    UsageUpdatedAt,
    /// The event's own `timestamp`.
    Event,
    /// `time` of EventBridge or CloudEvents, `Timestamp` of SNS.
    Envelope,
    /// The queue's `SentTimestamp`.
    Sent,
    /// The queue's `SentTimestamp`, as the time found is more than five minutes later.
    Limited,
}

impl TimeSource {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::EntitlementsUpdatedAt => "entitlementsUpdatedAt",
            Self::NewestEntitlement => "the newest entitlementUpdatedAt",
            Self::UsageUpdatedAt => "usageUpdatedAt",
            Self::Event => "timestamp",
            Self::Envelope => "the time of the envelope",
            Self::Sent => "SentTimestamp",
            Self::Limited => "SentTimestamp, as the event's time is more than 5 minutes later",
        }
    }
}

/// A customer, or one resource of a customer; neither id is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    pub customer: Cow<'a, str>,
    pub resource: Option<Cow<'a, str>>,
}

impl Entity<'_> {
    pub fn as_owner(&self) -> Owner<'_> {
        Owner {
            customer: &self.customer,
            resource: self.resource.as_deref(),
        }
    }

    fn length(&self) -> usize {
        self.customer.len() + self.resource.as_ref().map_or(0, |it| it.len())
    }
}

/// What a usage counts.
#[derive(Debug, PartialEq, Eq)]
pub enum Metered<'a> {
    Feature(Cow<'a, str>),
    Credit(Cow<'a, str>),
}

/// Usage within a period; periods in epoch milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage<'a> {
    pub current: Number<'a>,
    pub period_start: Option<Millis>,
    pub period_end: Option<Millis>,
}

/// One entitlement, levelled to what the SDK stores.
#[derive(Debug, PartialEq)]
pub struct Entitlement<'a> {
    pub feature: Option<Feature<'a>>,
    pub resource: Option<Cow<'a, str>>,
    pub usage_limit: Option<Number<'a>>,
    pub unlimited: bool,
    pub soft_limit: bool,
    pub access_denied_reason: Option<Cow<'a, str>>,
    pub enum_values: Vec<Cow<'a, str>>,
    pub valid_until: Option<Number<'a>>,
    pub credit_rate: Option<CreditRate<'a>>,
    pub reset_period: Option<Cow<'a, str>>,
    pub reset_configuration: Option<ResetConfiguration<'a>>,
    pub usage: Usage<'a>,
    pub period_anchor: Option<Millis>,
    /// When the usage was true, where the message says so.
    pub usage_at: Option<Millis>,
    /// Whether the message has the current usage or its time; if not, `usage` holds an assumed 0.
    pub usage_is_known: bool,
}

/// One credit entitlement of a list.
#[derive(Debug, PartialEq)]
pub struct Credit<'a> {
    pub currency: Option<Cow<'a, str>>,
    /// What was consumed, where the message says so.
    pub usage: Option<Usage<'a>>,
    pub usage_at: Option<Millis>,
}

#[derive(Debug, PartialEq)]
pub struct Feature<'a> {
    pub id: Cow<'a, str>,
    pub feature_type: Option<FeatureType<'a>>,
    pub meter_type: Option<MeterType<'a>>,
    pub units: Cow<'a, str>,
    pub units_plural: Cow<'a, str>,
}

impl Feature<'_> {
    /// Readers keep the usage of a metered feature in a key of its own, and miss without it.
    pub fn is_metered(&self) -> bool {
        self.feature_type == Some(FeatureType::Number)
            && matches!(
                self.meter_type,
                Some(MeterType::Incremental | MeterType::Fluctuating)
            )
    }
}

#[derive(Debug, PartialEq)]
pub struct CreditRate<'a> {
    pub amount: Number<'a>,
    pub currency: Cow<'a, str>,
}

/// How a usage period is counted; `according_to` names its field as GraphQL does.
#[derive(Debug, PartialEq)]
pub struct ResetConfiguration<'a> {
    pub type_name: Cow<'a, str>,
    pub according_to: Option<(&'static str, Cow<'a, str>)>,
}

/// Why a message cannot be applied, now or ever: for the log and the dead-letter queue.
///
/// The text names fields and what is wrong with them, never values: a body is not logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

#[cfg(test)]
mod tests;
