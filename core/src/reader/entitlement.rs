//! Decides access to one entitlement as an SDK does.

use std::borrow::Cow;

use serde_json::Value;

use super::{Datum, Fact};

/// What an SDK makes of one entitlement at one time: few bytes, see [`pack`](super::pack).
#[derive(Debug, Clone, PartialEq)]
pub struct Entitlement<'a> {
    pub feature: Cow<'a, str>,
    pub kind: Kind,
    /// Whether `usagePeriodEnd` has passed: `getMeteredEntitlement` then answers 0, and `getEntitlements` the
    /// stored usage.
    pub is_period_over: bool,
    pub(super) verdict: Verdict,
    pub(super) marks: Marks,
    pub(super) facts: [Datum<'a>; Fact::ALL.len()],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Numeric,
    Metered,
    Enum,
    /// Another type, or not an entitlement.
    Unknown,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Numeric => "numeric",
            Self::Metered => "metered",
            Self::Enum => "enum",
            Self::Unknown => "unknown",
        }
    }

    /// Returns the kind of a stored `feature`.
    pub(super) fn of(feature: &Value) -> Self {
        let meter = &feature["meterType"];
        match feature["featureType"].as_str() {
            Some("BOOLEAN") => Self::Boolean,
            Some("ENUM") => Self::Enum,
            Some("NUMBER") if meter == "Incremental" || meter == "Fluctuating" => Self::Metered,
            Some("NUMBER") => Self::Numeric,
            _ => Self::Unknown,
        }
    }
}

/// Properties of an entitlement that are true or false, one bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks(pub(super) u8);

impl Marks {
    pub(super) const UNLIMITED: u8 = 1;
    pub(super) const SOFT_LIMIT: u8 = 1 << 1;
    /// A limit applies.
    pub(super) const LIMITED: u8 = 1 << 2;
    /// `currentUsage` is stored; it may be null.
    pub(super) const HAS_CURRENT: u8 = 1 << 3;
    /// `feature` is an object.
    pub(super) const HAS_FEATURE: u8 = 1 << 4;
    /// The whole entry is false in JavaScript.
    pub(super) const FALSY: u8 = 1 << 5;
    /// Its usage is there, so that it can be decided.
    pub(super) const WHOLE: u8 = 1 << 6;

    pub(super) fn set(&mut self, mark: u8, is_set: bool) {
        if is_set {
            self.0 |= mark;
        }
    }

    fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }
}

/// The part of `decideEntitlementPolicy` that does not depend on what is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is none: the request decides.
    Open,
    Denied,
    NoFeature,
    NoEntitlement,
    UnknownType,
    NoUsage,
}

/// The usage of a metered feature.
#[derive(Debug)]
pub struct Usage<'a> {
    pub stored: &'a Datum<'a>,
    pub is_over: bool,
}

impl Usage<'_> {
    pub fn answered(&self) -> Datum<'_> {
        match self.is_over {
            true => Datum::Int(0),
            false => self.stored.borrowed(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access<'a> {
    Granted,
    Denied(Cow<'a, str>),
    /// An SDK returns its fallback.
    Unreadable(&'static str),
}

/// The request of a caller for a feature; the default is any use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The requested usage, in addition to the current one.
    pub usage: f64,
    /// The requested values of an enum.
    pub values: Vec<String>,
}

impl<'a> Entitlement<'a> {
    /// Decides whether the customer has access to the request: `decideEntitlementPolicy` of the SDK.
    pub fn decide(&self, request: &Request) -> Access<'_> {
        let denied = |reason: &'static str| Access::Denied(reason.into());
        match self.verdict {
            Verdict::Open => {}
            Verdict::Denied => return Access::Denied(self.fact(Fact::AccessDeniedReason).plain()),
            Verdict::NoFeature => return denied(NO_FEATURE),
            Verdict::NoEntitlement => return Access::Unreadable("no entitlement"),
            Verdict::UnknownType => return Access::Unreadable("featureType is unknown"),
            Verdict::NoUsage => return Access::Unreadable("featureUsage is missing"),
        }
        if self.kind == Kind::Enum {
            return match request.values.is_empty() || self.grants(&request.values) {
                true => Access::Granted,
                false => denied("RequestedValuesMismatch"),
            };
        }
        if !self.marks.has(Marks::LIMITED) || self.is_unlimited() || self.has_soft_limit() {
            return Access::Granted;
        }
        let limit = self.limit().as_f64().unwrap_or(0.0);
        match self.current() {
            Some(current) if current + request.usage <= limit => Access::Granted,
            _ => denied("RequestedUsageExceedingLimit"),
        }
    }

    fn grants(&self, values: &[String]) -> bool {
        let granted = self.enum_values();
        values.iter().all(|value| granted.contains(value))
    }

    /// Returns the usage to compare with the limit. Adds as JavaScript does: null counts as 0, and a missing value makes NaN.
    fn current(&self) -> Option<f64> {
        match self.fact(Fact::CurrentUsage) {
            _ if self.usage().is_some_and(|usage| usage.is_over) => Some(0.0),
            Datum::Null if self.marks.has(Marks::HAS_CURRENT) => Some(0.0),
            current => current.as_f64(),
        }
    }

    pub fn fact(&self, fact: Fact) -> &Datum<'a> {
        &self.facts[fact as usize]
    }

    pub(super) fn set(&mut self, fact: Fact, value: Datum<'a>) {
        self.facts[fact as usize] = value;
    }

    pub fn limit(&self) -> &Datum<'a> {
        self.fact(Fact::UsageLimit)
    }

    pub fn is_unlimited(&self) -> bool {
        self.marks.has(Marks::UNLIMITED)
    }

    pub fn has_soft_limit(&self) -> bool {
        self.marks.has(Marks::SOFT_LIMIT)
    }

    pub fn has_feature(&self) -> bool {
        self.marks.has(Marks::HAS_FEATURE)
    }

    /// Returns whether its usage is there, so that it can be decided.
    pub fn is_whole(&self) -> bool {
        self.marks.has(Marks::WHOLE)
    }

    /// Returns whether a limit applies.
    pub fn is_limited(&self) -> bool {
        self.marks.has(Marks::LIMITED) || self.kind == Kind::Numeric
    }

    /// Returns whether the stored value is false in JavaScript: an SDK asked for this feature treats it as missing.
    pub fn is_falsy(&self) -> bool {
        self.marks.has(Marks::FALSY)
    }

    pub fn enum_values(&self) -> Vec<String> {
        self.fact(Fact::EnumValues).elements()
    }

    /// Returns the usage of a metered feature.
    pub fn usage(&self) -> Option<Usage<'_>> {
        (self.kind == Kind::Metered).then(|| Usage {
            stored: self.fact(Fact::CurrentUsage),
            is_over: self.is_period_over,
        })
    }

    pub fn reset_period(&self) -> Option<&str> {
        // In the newer layout it is next to the limit.
        let own = self.fact(Fact::ResetPeriod).as_str();
        own.or_else(|| self.fact(Fact::ResetPeriodOfLimit).as_str())
    }

    /// Returns the end of its usage period.
    pub fn period_end(&self) -> Option<f64> {
        time(self.fact(Fact::PeriodEnd))
    }

    pub fn valid_until(&self) -> Option<f64> {
        time(self.fact(Fact::ValidUntil))
    }

    /// Sets whether the usage period has passed.
    pub(super) fn at(mut self, now: f64) -> Self {
        self.is_period_over = self.period_end().is_some_and(|end| end < now);
        self
    }
}

/// Converts a time; 0 is none.
fn time(value: &Datum<'_>) -> Option<f64> {
    value.as_f64().filter(|at| *at != 0.0)
}

/// The reason of an SDK where a customer has no entitlement for the feature.
pub const NO_FEATURE: &str = "NoFeatureEntitlementInSubscription";
/// The reason of an SDK where a customer has no entitlement at all.
pub const NO_CUSTOMER: &str = "CustomerNotFound";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Reading;

    fn read(stored: &str, usage: Option<&str>) -> Entitlement<'static> {
        let usage = crate::reader::StoredUsage {
            value: usage,
            has_timestamp: true,
        };
        Reading::of("f", stored, |_| usage, 1_000.0).entitlement
    }

    #[test]
    fn whatever_is_stored_is_read_without_a_panic() {
        for stored in [
            "null",
            "5",
            "\"x\"",
            "[]",
            "{}",
            "[1]",
            r#"{"calculatedEntitlement":5}"#,
            r#"{"calculatedEntitlement":{"feature":[]}}"#,
            r#"{"calculatedEntitlement":{"feature":{"featureType":"NUMBER","meterType":"Incremental"},"enumValues":{},"usageLimit":"x"},"featureUsage":7}"#,
        ] {
            for usage in [
                None,
                Some("null"),
                Some("x"),
                Some("[]"),
                Some("{}"),
                Some("7"),
            ] {
                let read = read(stored, usage);
                assert_ne!(
                    read.decide(&Request::default()),
                    Access::Granted,
                    "{stored}"
                );
            }
        }
    }
}
