//! Prints the report as text.

use entitlement_sync::store::Ttl;
use serde_json::Value;

use super::gather::Pair;
use super::report::{Place, Report, Resource};
use crate::commands::output::{self, bad, dim, doubtful, good};
use crate::commands::when;
use entitlement_sync::reader::{Access, Entitlement, Kind, Map, Reading, Request};

impl Report<'_> {
    pub fn print(&self) -> anyhow::Result<()> {
        let name = self.name();
        if !self.found.is_known() {
            output::line(format!("{name} is not in {}.", self.place.as_str()))?;
        }
        match self.place {
            Place::Redis => self.print_answers()?,
            Place::Snapshot => self.print_misses("A process with this state")?,
        }
        self.print_entitlements()?;
        self.print_pairs()?;
        if self.feature.is_none() {
            self.print_resources()?;
        }
        let notes = self.notes();
        if !notes.is_empty() {
            output::line("")?;
        }
        for note in notes {
            output::line(doubtful().apply_to(note))?;
        }
        if self.feature.is_some() {
            for Reading { entitlement, .. } in &self.entitlements {
                output::line(format!("\n{}", self.stored(&entitlement.feature)))?;
            }
        } else if let (Map::Unreadable(_), Some(text)) = (&self.map, &self.found.entitlements.value)
        {
            output::line(format!("\n{text}"))?;
        }
        Ok(())
    }

    fn print_answers(&self) -> anyhow::Result<()> {
        self.print_answer("An SDK", &self.misses)?;
        if self.is_answered() && !self.misses_newer.is_empty() {
            self.print_answer("An SDK of 4.x", &self.misses_newer)?;
        }
        Ok(())
    }

    fn print_misses(&self, who: &str) -> anyhow::Result<()> {
        match self.misses.is_empty() {
            true => Ok(()),
            false => self.print_answer(who, &self.misses),
        }
    }

    fn print_answer(&self, who: &str, misses: &[String]) -> anyhow::Result<()> {
        if misses.is_empty() {
            return output::line(good().apply_to(format!("{who} would answer from Redis.")));
        }
        let text = format!(
            "{who} would miss and ask the Edge API, because {}.",
            misses.join("; ")
        );
        output::line(bad().apply_to(text))
    }

    fn print_entitlements(&self) -> anyhow::Result<()> {
        let Map::Entries(_) = &self.map else {
            return Ok(());
        };
        if self.entitlements.is_empty() {
            let reason = self.absent();
            return match self.feature {
                Some(feature) => {
                    output::line(format!("\nNo entitlement to {feature}: denied, {reason}."))
                }
                None => output::line(format!(
                    "\nNo entitlements: denied, {reason}.{}",
                    self.reason()
                )),
            };
        }
        output::line("")?;
        let all = self.entitlements.iter().map(|it| &it.entitlement);
        entitlements(all, self.now)
    }

    /// Returns why SDK 4.x denies the whole customer.
    fn reason(&self) -> String {
        let metadata = self.found.metadata.value.as_deref().unwrap_or_default();
        let metadata: Value = serde_json::from_str(metadata).unwrap_or_default();
        match metadata["accessDeniedReason"].as_str() {
            Some(reason) => format!(" An SDK of 4.x says {reason}."),
            None => String::new(),
        }
    }

    fn print_pairs(&self) -> anyhow::Result<()> {
        let row = |pair: &Pair| {
            let age = pair.timestamp.as_deref().map(|text| match self.age(text) {
                Some(age) => when::ago(age),
                None => "unknown".into(),
            });
            let value = match &pair.value {
                // The map is a table of its own.
                Some(_) if pair.key == self.found.entitlements.key => String::new(),
                Some(text) => text.clone(),
                None if pair.ttl != Ttl::Missing => "(not a string)".into(),
                None => "(none)".into(),
            };
            [
                pair.name.clone(),
                age.unwrap_or_else(|| bad().apply_to("no timestamp").to_string()),
                when::ttl(pair.ttl.soonest(pair.timestamp_ttl)),
                value,
            ]
        };
        let rows: Vec<_> = self.shown_pairs().map(row).collect();
        if !rows.is_empty() {
            output::line("")?;
        }
        output::table(["STORED", "AGE", "TTL", "VALUE"], &rows)
    }

    fn print_resources(&self) -> anyhow::Result<()> {
        let row = |resource: &Resource| {
            let now = i64::try_from(self.now).unwrap_or(i64::MAX);
            [
                resource.id.clone(),
                resource
                    .at
                    .map_or_else(|| "unknown".into(), |at| when::ago(now - at)),
                match resource.miss {
                    None => good().apply_to("fresh").to_string(),
                    Some(why) => bad().apply_to(format!("a miss: {why}")).to_string(),
                },
            ]
        };
        let rows: Vec<_> = self.resources.iter().map(row).collect();
        if !rows.is_empty() {
            output::line("")?;
        }
        output::table(["RESOURCE", "AGE", "ENTITLEMENTS"], &rows)
    }
}

/// Prints a table of entitlements, as they are at `now`.
pub fn entitlements<'a>(
    all: impl Iterator<Item = &'a Entitlement<'a>>,
    now: u64,
) -> anyhow::Result<()> {
    let rows: Vec<_> = all.map(|it| row(it, now)).collect();
    let head = [
        "FEATURE",
        "TYPE",
        "LIMIT",
        "USAGE",
        "RESETS",
        "ACCESS",
        "VALID UNTIL",
    ];
    output::table(head, &rows)
}

fn row(it: &Entitlement<'_>, now: u64) -> [String; 7] {
    let limit = match it.kind {
        Kind::Enum => it.enum_values().join(", "),
        Kind::Boolean | Kind::Unknown => String::new(),
        _ if it.is_unlimited() => "unlimited".into(),
        _ if it.limit().is_null() => "none".into(),
        _ if it.has_soft_limit() => format!("{} (soft)", it.limit().plain()),
        _ => it.limit().plain().into_owned(),
    };
    let usage = match it.usage() {
        Some(usage) if usage.is_over => format!("0 (was {})", usage.stored.plain()),
        Some(usage) => usage.stored.plain().into_owned(),
        None => String::new(),
    };
    let access = match &it.decide(&Request::default()) {
        Access::Granted => good().apply_to("granted".to_owned()),
        Access::Denied(reason) => bad().apply_to(format!("denied: {reason}")),
        Access::Unreadable(why) => bad().apply_to(format!("cannot be read: {why}")),
    };
    let until = it.valid_until().map(|at| {
        let text = when::point(at as i64);
        let passed = at <= now as f64;
        if passed {
            bad().apply_to(text + ", passed")
        } else {
            dim().apply_to(text)
        }
        .to_string()
    });
    [
        it.feature.to_string(),
        it.kind.as_str().into(),
        limit,
        usage,
        it.reset_period().unwrap_or_default().to_lowercase(),
        access.to_string(),
        until.unwrap_or_default(),
    ]
}
