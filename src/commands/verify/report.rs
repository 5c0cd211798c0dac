//! Prints the comparison as text or JSON.

use serde::Serialize;

use super::compare::Finding;
use crate::commands::bulk::{Customer, Unloaded};
use crate::commands::output;

#[derive(Serialize, Default)]
pub struct Report {
    pub same: u64,
    /// Customers that differ, or differed before the repair.
    drifted: u64,
    /// Of these, the customers that are repaired.
    repaired: u64,
    drift: Vec<Row>,
    #[serde(flatten)]
    pub unloaded: Unloaded,
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    customer: Customer,
    #[serde(flatten)]
    finding: Finding,
    repaired: bool,
}

impl Report {
    pub fn drift(&mut self, customer: &Customer, found: Vec<Finding>, left: Vec<Finding>) {
        self.drifted += 1;
        self.repaired += u64::from(left.is_empty());
        for finding in found {
            self.drift.push(Row {
                customer: customer.clone(),
                repaired: !left.iter().any(|it| it.is_about_the_same(&finding)),
                finding,
            });
        }
    }

    pub fn compared(&self) -> u64 {
        self.same + self.drifted + self.unloaded.not_found + self.unloaded.credits
    }

    pub fn is_clean(&self) -> bool {
        self.unloaded.failed == 0 && self.drifted == self.repaired
    }

    pub fn print(&self, repair: bool) -> anyhow::Result<()> {
        let rows: Vec<_> = self.drift.iter().map(|row| row.cells(repair)).collect();
        let head = [
            "CUSTOMER",
            "RESOURCE",
            "DRIFT",
            "WHERE",
            "IN REDIS",
            "AT SOURCE",
        ];
        output::table(head, &rows)?;
        let repaired = match repair {
            true => format!(" ({} repaired)", self.repaired),
            false => String::new(),
        };
        output::line(format!(
            "{} the same, {} drifted{repaired}, {} not found, {} failed",
            self.same, self.drifted, self.unloaded.not_found, self.unloaded.failed
        ))?;
        if self.unloaded.credits > 0 {
            output::line(format!(
                "{} not compared: they have credit entitlements, which this layout cannot hold",
                self.unloaded.credits
            ))?;
        }
        Ok(())
    }
}

impl Row {
    fn cells(&self, repair: bool) -> [String; 6] {
        let finding = &self.finding;
        let drift = match (repair, self.repaired) {
            (false, _) => finding.drift.as_str().to_owned(),
            (true, true) => format!("{}, repaired", finding.drift.as_str()),
            (true, false) => format!("{}, left", finding.drift.as_str()),
        };
        [
            self.customer.customer_id.clone(),
            self.customer.resource_id.clone().unwrap_or_default(),
            drift,
            finding.field.clone().unwrap_or_else(|| finding.key.clone()),
            short(finding.redis.as_ref()),
            short(finding.source.as_ref()),
        ]
    }
}

/// Shortens a value to a cell; `--json` prints all of it.
fn short(value: Option<&serde_json::Value>) -> String {
    const MAX_CELL_CHARS: usize = 40;
    let text = value.map_or_else(|| "-".into(), ToString::to_string);
    if text.chars().count() <= MAX_CELL_CHARS {
        return text;
    }
    text.chars().take(MAX_CELL_CHARS).chain(['…']).collect()
}
