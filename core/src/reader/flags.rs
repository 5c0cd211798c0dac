//! Evaluates entitlements as flags of OpenFeature's remote evaluation protocol.
//!
//! | key | value |
//! |---|---|
//! | `<featureId>` | whether the customer may use it |
//! | `<featureId>@limit`, `@usage`, `@remaining` | numbers; none where it is unlimited |
//! | `<featureId>@values` | `{"values": […]}`, the granted values of an enum |
//! | `<featureId>@entitlement` | all of it, as an object |

use std::collections::BTreeSet;

use serde::Serialize;

use super::time::Iso;
use super::{Access, Datum, Entry, Kind, NO_CUSTOMER, NO_FEATURE, Request, State};

/// An evaluated flag, which is written by [`Self::evaluated`].
#[derive(Debug)]
pub struct Flag<'a> {
    aspect: Aspect,
    /// `None`: the customer has no entitlement for the feature.
    entry: Option<Entry<'a>>,
    /// Why it is denied, if it is.
    reason: Option<String>,
}

/// Why a flag cannot be evaluated; names no feature.
pub type NotEvaluated = &'static str;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aspect {
    Access,
    Limit,
    Usage,
    Remaining,
    Values,
    Whole,
}

const ASPECTS: [(&str, Aspect); 5] = [
    ("@limit", Aspect::Limit),
    ("@usage", Aspect::Usage),
    ("@remaining", Aspect::Remaining),
    ("@values", Aspect::Values),
    ("@entitlement", Aspect::Whole),
];

/// Evaluates one flag. An unknown feature or customer is denied.
pub fn flag<'a>(
    state: &'a State,
    key: &str,
    request: &Request,
    now: f64,
) -> Result<Flag<'a>, NotEvaluated> {
    // A feature whose id ends like an aspect takes precedence.
    if let Some(entry) = state.find(key, now) {
        return Flag::of(entry, Aspect::Access, request);
    }
    let found = ASPECTS
        .into_iter()
        .find_map(|(suffix, aspect)| Some((key.strip_suffix(suffix)?, aspect)));
    let (feature, aspect) = found.unwrap_or((key, Aspect::Access));
    match state.find(feature, now) {
        Some(entry) => Flag::of(entry, aspect, request),
        None => Ok(Flag::absent(state, aspect)),
    }
}

/// Evaluates every flag of a customer: the access and the aspects of each feature. Each key is there once.
pub fn flags<'a>(
    state: &'a State,
    request: &Request,
    now: f64,
) -> Vec<(String, Result<Flag<'a>, NotEvaluated>)> {
    let mut flags = Vec::new();
    let entries: Vec<Entry<'a>> = state.entries(now).collect();
    let like_aspects = features_like_aspects(&entries);
    for entry in &entries {
        let (feature, kind) = (&entry.entitlement.feature, entry.entitlement.kind);
        let access = ("", Aspect::Access);
        for (suffix, aspect) in [access].into_iter().chain(ASPECTS) {
            let has = match aspect {
                Aspect::Limit => matches!(kind, Kind::Numeric | Kind::Metered),
                Aspect::Usage | Aspect::Remaining => kind == Kind::Metered,
                Aspect::Values => kind == Kind::Enum,
                Aspect::Access => true,
                Aspect::Whole => false,
            };
            if !has {
                continue;
            }
            let key = format!("{feature}{suffix}");
            // A feature whose id ends like an aspect takes precedence.
            if aspect == Aspect::Access || !like_aspects.contains(key.as_str()) {
                flags.push((key, Flag::of(entry.clone(), aspect, request)));
            }
        }
    }
    flags
}

/// Returns the features whose id ends like an aspect of another; usually there are none.
fn features_like_aspects<'a>(entries: &'a [Entry<'_>]) -> BTreeSet<&'a str> {
    let is_like = |feature: &&str| ASPECTS.iter().any(|(suffix, _)| feature.ends_with(suffix));
    let features = entries.iter().map(|entry| &*entry.entitlement.feature);
    features.filter(is_like).collect()
}

/// An evaluated flag as the protocol's JSON.
#[derive(Debug, Serialize)]
pub struct Evaluated<'a> {
    key: &'a str,
    metadata: Metadata<'a>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Answer<'a>>,
    variant: &'static str,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    access_denied_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Datum::is_null")]
    current_usage: Datum<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feature_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    soft_limit: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unlimited: Option<bool>,
    #[serde(skip_serializing_if = "Datum::is_null")]
    usage_limit: Datum<'a>,
    #[serde(skip_serializing_if = "Iso::is_none")]
    usage_period_end: Iso,
}

/// The value of a flag.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Access(bool),
    Number(Datum<'a>),
    Values {
        values: Vec<String>,
    },
    Whole(Box<Whole<'a>>),
    #[serde(rename_all = "camelCase")]
    Nothing {
        access_denied_reason: Option<&'a str>,
        has_access: bool,
    },
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a> {
    access_denied_reason: Option<&'a str>,
    current_usage: Datum<'a>,
    enum_values: Vec<String>,
    feature: &'a str,
    has_access: bool,
    has_soft_limit: bool,
    is_unlimited: bool,
    reset_period: Option<&'a str>,
    r#type: &'static str,
    usage_limit: Datum<'a>,
    usage_period_end: Iso,
    valid_until: Iso,
}

impl<'a> Flag<'a> {
    fn of(entry: Entry<'a>, aspect: Aspect, request: &Request) -> Result<Self, NotEvaluated> {
        let reason = match entry.decide(request) {
            Access::Granted => None,
            Access::Denied(reason) => Some(reason.into_owned()),
            Access::Unreadable(why) => return Err(why),
        };
        Ok(Self {
            aspect,
            entry: Some(entry),
            reason,
        })
    }

    /// Evaluates a feature for which the customer has no entitlement.
    fn absent(state: &State, aspect: Aspect) -> Self {
        let reason = match state.is_empty() {
            true => NO_CUSTOMER,
            false => NO_FEATURE,
        };
        Self {
            aspect,
            entry: None,
            reason: Some(reason.to_owned()),
        }
    }

    pub fn is_granted(&self) -> bool {
        self.reason.is_none()
    }

    /// Returns what the protocol answers. `reason`: where the answer comes from.
    pub fn evaluated<'b>(
        &'b self,
        key: &'b str,
        reason: &'b str,
        age_ms: Option<u64>,
    ) -> Evaluated<'b> {
        let (value, metadata) = match &self.entry {
            Some(entry) => (self.value(entry), self.metadata(entry)),
            None => (Some(self.absent_value()), Metadata::default()),
        };
        Evaluated {
            key,
            metadata: Metadata {
                access_denied_reason: self.reason.as_deref(),
                age_ms,
                ..metadata
            },
            reason,
            value,
            variant: match self.is_granted() {
                true => "granted",
                false => "denied",
            },
        }
    }

    fn absent_value(&self) -> Answer<'_> {
        match self.aspect {
            Aspect::Access => Answer::Access(false),
            Aspect::Limit | Aspect::Usage | Aspect::Remaining => Answer::Number(Datum::Int(0)),
            Aspect::Values => Answer::Values { values: Vec::new() },
            Aspect::Whole => Answer::Nothing {
                access_denied_reason: self.reason.as_deref(),
                has_access: false,
            },
        }
    }

    fn metadata<'b>(&'b self, entry: &'b Entry<'a>) -> Metadata<'b> {
        let it = &entry.entitlement;
        let metadata = Metadata {
            feature_type: Some(it.kind.as_str()),
            ..Metadata::default()
        };
        if !it.is_limited() {
            return metadata;
        }
        Metadata {
            current_usage: usage(entry),
            soft_limit: Some(it.has_soft_limit()),
            unlimited: Some(entry.is_unlimited()),
            usage_limit: it.limit().number(),
            usage_period_end: Iso(it.period_end().filter(|_| it.kind == Kind::Metered)),
            ..metadata
        }
    }

    /// Returns the value; `None`: the caller uses its default.
    fn value<'b>(&'b self, entry: &'b Entry<'a>) -> Option<Answer<'b>> {
        let it = &entry.entitlement;
        let number = |number: Datum<'b>| number.is_number().then_some(Answer::Number(number));
        match self.aspect {
            Aspect::Access => Some(Answer::Access(self.is_granted())),
            // An expired entitlement grants nothing, unlimited or not.
            Aspect::Limit | Aspect::Remaining if entry.is_expired => number(Datum::Int(0)),
            Aspect::Limit | Aspect::Remaining if entry.is_unlimited() => None,
            Aspect::Limit => number(it.limit().number()),
            Aspect::Usage => number(usage(entry)),
            Aspect::Remaining => number(remaining(entry)),
            Aspect::Values => Some(Answer::Values {
                values: granted_values(entry),
            }),
            Aspect::Whole => Some(Answer::Whole(Box::new(self.whole(entry)))),
        }
    }

    fn whole<'b>(&'b self, entry: &'b Entry<'a>) -> Whole<'b> {
        let it = &entry.entitlement;
        Whole {
            access_denied_reason: self.reason.as_deref(),
            current_usage: usage(entry),
            enum_values: granted_values(entry),
            feature: &it.feature,
            has_access: self.is_granted(),
            has_soft_limit: it.has_soft_limit(),
            is_unlimited: entry.is_unlimited(),
            reset_period: it.reset_period(),
            r#type: it.kind.as_str(),
            usage_limit: it.limit().number(),
            usage_period_end: Iso(it.period_end().filter(|_| it.kind == Kind::Metered)),
            valid_until: Iso(it.valid_until()),
        }
    }
}

/// Returns the usage of a metered feature, if it is a number.
fn usage<'b>(entry: &'b Entry<'_>) -> Datum<'b> {
    match entry.entitlement.usage() {
        Some(usage) if usage.is_over => Datum::Int(0),
        Some(usage) => usage.stored.number(),
        None => Datum::Null,
    }
}

fn granted_values(entry: &Entry<'_>) -> Vec<String> {
    match entry.is_expired {
        true => Vec::new(),
        false => entry.entitlement.enum_values(),
    }
}

/// Returns the limit minus the usage, at least zero. Whole numbers stay whole.
fn remaining(entry: &Entry<'_>) -> Datum<'static> {
    let (limit, usage) = (entry.entitlement.limit(), usage(entry));
    if let (Some(limit), Some(usage)) = (limit.as_i64(), usage.as_i64()) {
        return Datum::Int(limit.saturating_sub(usage).max(0));
    }
    let left = limit.as_f64().zip(usage.as_f64());
    Datum::float(left.map(|(limit, usage)| (limit - usage).max(0.0)))
}
