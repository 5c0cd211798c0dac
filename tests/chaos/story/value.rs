//! What readers must find, as the contract spells it.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;

use super::PERIOD;
use super::spec::{Metered, Used};

pub struct Feature {
    pub id: String,
    pub feature_type: &'static str,
    pub meter_type: Option<&'static str>,
    /// A number as it is written.
    current: String,
    pub limit: Option<u64>,
    pub enum_values: Vec<String>,
    used: Used,
}

impl Feature {
    pub fn metered(id: u8, current: String, used: Used) -> Feature {
        Feature {
            id: format!("feature-{id}"),
            feature_type: "NUMBER",
            meter_type: Some(if id.is_multiple_of(2) {
                "Fluctuating"
            } else {
                "Incremental"
            }),
            limit: (!id.is_multiple_of(3)).then_some(1_000_000),
            current: match used {
                Used::Missing => "0".to_owned(),
                Used::Now | Used::At(_) => current,
            },
            enum_values: Vec::new(),
            used,
        }
    }

    pub fn plain(id: &str, feature_type: &'static str, seq: u64) -> Feature {
        Feature {
            id: id.to_owned(),
            feature_type,
            meter_type: None,
            limit: None,
            current: "0".into(),
            enum_values: match feature_type {
                "ENUM" => vec!["a".into(), format!("v{seq}")],
                _ => Vec::new(),
            },
            used: Used::Now,
        }
    }

    pub fn is_metered(&self) -> bool {
        self.meter_type.is_some()
    }

    /// As the message says it.
    pub fn current(&self) -> Value {
        match self.used {
            Used::Missing => Value::Null,
            Used::Now | Used::At(_) => serde_json::from_str(&self.current).unwrap(),
        }
    }

    pub fn usage_at(&self) -> Option<u64> {
        match self.used {
            Used::At(at) => Some(at),
            Used::Now | Used::Missing => None,
        }
    }
}

pub fn entitlements(features: &[Feature]) -> Arc<str> {
    let mut text = String::from("{");
    for (place, feature) in features.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let (id, of) = (&feature.id, feature.feature_type);
        let metered = feature.is_metered();
        let units = if metered {
            r#""units":"call","unitsPlural":"calls""#
        } else {
            r#""units":"","unitsPlural":"""#
        };
        let meter = feature
            .meter_type
            .map_or(String::new(), |meter| format!(r#""meterType":"{meter}","#));
        let limit = feature
            .limit
            .map_or("null".to_owned(), |limit| limit.to_string());
        let values = serde_json::to_string(&feature.enum_values).unwrap();
        let usage = if metered {
            format!(
                r#""resetPeriod":"MONTH","resetPeriodConfiguration":{{"__typename":"MonthlyResetPeriodConfig","monthlyAccordingTo":"SubscriptionStart"}},"currentUsage":{},"usagePeriodStart":{},"usagePeriodEnd":{}"#,
                feature.current, PERIOD.0, PERIOD.1
            )
        } else {
            r#""resetPeriod":null,"resetPeriodConfiguration":null,"currentUsage":0"#.to_owned()
        };
        let _ = write!(
            text,
            r#""{id}":{{"calculatedEntitlement":{{"feature":{{"id":"{id}","featureType":"{of}",{meter}{units}}},"usageLimit":{limit},"hasUnlimitedUsage":false,"hasSoftLimit":{metered},"enumValues":{values}}},"featureUsage":{{{usage}}}}}"#
        );
    }
    text.push('}');
    text.into()
}

pub fn usage(current: String, periods: Option<(u64, u64)>) -> Arc<str> {
    match periods {
        Some((start, end)) => format!(
            r#"{{"currentUsage":{current},"usagePeriodStart":{start},"usagePeriodEnd":{end}}}"#
        ),
        None => format!(r#"{{"currentUsage":{current}}}"#),
    }
    .into()
}

/// Unlike that of any other message; now and then a fraction.
pub fn current(seq: u64, place: u64) -> String {
    let fraction = if seq.is_multiple_of(7) { ".5" } else { "" };
    format!("{}{fraction}", seq * 10 + place)
}

/// The public credit shapes carry no start of a period.
pub fn periods(seq: u64, of: Metered) -> Option<(u64, u64)> {
    match of {
        Metered::Feature(_) => (!seq.is_multiple_of(5)).then_some(PERIOD),
        Metered::Credit(_) => None,
    }
}
