//! The customers of the bench of the read API, as messages.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use testkit::mix;

pub const FEATURES: usize = 5;
const TIME: &str = "2025-11-13T00:00:00.000Z";

pub fn name(rank: usize) -> String {
    format!("customer-{rank:07}")
}

/// One message a customer: five features, three of them metered.
pub fn write(folder: &Path, customers: Range<usize>) -> Result<PathBuf> {
    let path = folder.join(format!("customers-{}.jsonl", customers.end));
    let entitlements: Vec<Value> = (0..FEATURES).map(entitlement).collect();
    write_lines(&path, customers, |rank| {
        set(&name(rank), &json!(entitlements))
    })?;
    Ok(path)
}

/// The customers of the mix, without features, as Redis has them before a drain.
pub fn write_empty(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("cached.jsonl");
    write_lines(&path, 0..mix::CUSTOMERS as usize, |rank| {
        set(&mix::customer(rank as u32), &json!([]))
    })?;
    Ok(path)
}

fn write_lines(path: &Path, ranks: Range<usize>, line: impl Fn(usize) -> Value) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for rank in ranks {
        writeln!(file, "{}", line(rank))?;
    }
    Ok(file.flush()?)
}

fn set(customer: &str, entitlements: &Value) -> Value {
    json!({
        "type": "ENTITLEMENTS_UPDATED", "timestamp": TIME,
        "customerId": customer, "resourceId": null,
        "entitlementsUpdatedAt": TIME, "entitlements": entitlements,
    })
}

fn entitlement(at: usize) -> Value {
    let id = format!("feature-{at:02}");
    if at % 2 == 1 {
        return json!({
            "feature": {"id": id, "featureType": "BOOLEAN", "units": "", "unitsPlural": ""},
        });
    }
    json!({
        "feature": {
            "id": id, "featureType": "NUMBER", "meterType": "Fluctuating", "units": "seat", "unitsPlural": "seats",
        },
        "usageLimit": 1_000_000, "currentUsage": 1, "usageUpdatedAt": TIME,
        "resetPeriod": "MONTH",
        "resetPeriodConfiguration": {
            "__typename": "MonthlyResetPeriodConfig", "monthlyAccordingTo": "SubscriptionStart",
        },
        "usagePeriodAnchor": "2025-11-01T00:00:00.000Z",
        "usagePeriodStart": "2025-11-01T00:00:00.000Z", "usagePeriodEnd": "2099-12-31T00:00:00.000Z",
    })
}
