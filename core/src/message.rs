//! Reads messages: bodies to [`StateChange`]s. No I/O.
//!
//! The vendor does not publish its SQS bodies. [`read`] reads the public shapes of these events in
//! one fast pass (`known`), and else searches any JSON for objects with a change (`structure`).
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

/// A change to the state in Redis.
#[derive(Debug, PartialEq)]
pub enum StateChange<'a> {
    /// Replaces all entitlements of one owner.
    SetCustomer {
        owner: Entity<'a>,
        entitlements: Vec<Entitlement<'a>>,
        /// The credit entitlements of the list, which the layout of entitlements cannot hold.
        credits: Vec<Credit<'a>>,
        access_denied_reason: Option<Cow<'a, str>>,
        at: Millis,
    },
    /// Sets the usage of one feature or currency of an owner.
    UpdateUsage {
        owner: Entity<'a>,
        of: Metered<'a>,
        usage: Usage<'a>,
        at: Millis,
    },
    /// Removes the owners, so that the next reader loads them again.
    Purge { owners: Vec<Entity<'a>>, at: Millis },
}

impl StateChange<'_> {
    /// The time of the change at its source.
    pub fn at(&self) -> Millis {
        match self {
            Self::SetCustomer { at, .. }
            | Self::UpdateUsage { at, .. }
            | Self::Purge { at, .. } => *at,
        }
    }

    /// Returns whether it is a list of entitlements with credit entitlements, which the layout cannot hold.
    pub fn lists_credits(&self) -> bool {
        matches!(self, Self::SetCustomer { credits, .. } if !credits.is_empty())
    }

    fn set_at(&mut self, time: Millis) {
        match self {
            Self::SetCustomer { at, .. }
            | Self::UpdateUsage { at, .. }
            | Self::Purge { at, .. } => *at = time,
        }
    }
}

/// One change of a message, and how it was found.
#[derive(Debug, PartialEq)]
pub struct Change<'a> {
    pub state: StateChange<'a>,
    /// The source of its time.
    pub time: TimeSource,
    /// The number of its times that were ahead of the message and were replaced by the time of sending.
    pub ahead: u32,
    /// The place in the body where the structure search found it; `None` for a known shape.
    pub path: Option<String>,
}

/// The source of the time of a change.
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

/// The thing that a usage counts.
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

/// One entitlement, normalized to the form that the SDK stores.
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
    /// The time of the usage, if the message has it.
    pub usage_at: Option<Millis>,
    /// Whether the message has the current usage or its time; if not, `usage` holds an assumed 0.
    pub usage_is_known: bool,
}

/// One credit entitlement of a list.
#[derive(Debug, PartialEq)]
pub struct Credit<'a> {
    pub currency: Option<Cow<'a, str>>,
    /// The consumed amount, if the message has it.
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
    /// Returns whether the feature is metered: readers keep its usage in a key of its own, and miss without it.
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

/// The rule of a usage period; `according_to` has its field name in GraphQL.
#[derive(Debug, PartialEq)]
pub struct ResetConfiguration<'a> {
    pub type_name: Cow<'a, str>,
    pub according_to: Option<(&'static str, Cow<'a, str>)>,
}

/// Why a message can never be applied, for the log and the dead-letter queue.
///
/// The text names fields and their errors, never values: a body is not logged.
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
