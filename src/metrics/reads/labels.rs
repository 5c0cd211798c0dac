//! The labels of the metrics of the read API.

use prometheus_client::encoding::EncodeLabelSet;

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadRoute {
    Entitlements,
    EntitlementsState,
    Flag,
    Flags,
    Configuration,
    PassedThrough,
}

impl ReadRoute {
    pub(super) const ALL: [Self; 6] = [
        Self::Entitlements,
        Self::EntitlementsState,
        Self::Flag,
        Self::Flags,
        Self::Configuration,
        Self::PassedThrough,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entitlements => "entitlements",
            Self::EntitlementsState => "entitlements_state",
            Self::Flag => "flag",
            Self::Flags => "flags",
            Self::Configuration => "configuration",
            Self::PassedThrough => "passed_through",
        }
    }
}

/// How a question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadResult {
    /// From the copy, which is fresh.
    Fresh,
    /// From Redis, read for the question.
    Redis,
    /// From the Edge API, asked for the question.
    Upstream,
    /// From the copy, which can no longer be confirmed.
    Stale,
    CannotTell,
    /// A wrong key.
    Denied,
    /// A question that cannot be asked.
    Refused,
}

impl ReadResult {
    pub const ALL: [Self; 7] = [
        Self::Fresh,
        Self::Redis,
        Self::Upstream,
        Self::Stale,
        Self::CannotTell,
        Self::Denied,
        Self::Refused,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Redis => "redis",
            Self::Upstream => "upstream",
            Self::Stale => "stale",
            Self::CannotTell => "cannot_tell",
            Self::Denied => "denied",
            Self::Refused => "refused",
        }
    }
}

/// How a request to the Edge API for a customer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamOutcome {
    Found,
    NotFound,
    Refused,
    Failed,
    /// It was not made: too many failed of late, or too many are under way.
    Skipped,
}

impl UpstreamOutcome {
    pub const ALL: [Self; 5] = [
        Self::Found,
        Self::NotFound,
        Self::Refused,
        Self::Failed,
        Self::Skipped,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Question {
    pub route: &'static str,
    pub result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    pub route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabel {
    pub reason: &'static str,
}
