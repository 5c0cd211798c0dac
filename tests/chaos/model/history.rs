//! The events of an owner, for the report of an error.

use std::sync::Arc;

use super::{Event, Fact, Item, Model};

impl Model {
    pub(super) fn history(&self, index: usize) -> Vec<String> {
        let state = &self.states[index];
        let time = |pair: &Option<(u64, Arc<str>)>| pair.as_ref().map(|(at, _)| *at);
        let usages: Vec<String> = state
            .base
            .usages
            .iter()
            .map(|(suffix, (at, _))| format!("{suffix} {at}"))
            .collect();
        let mut lines = vec![format!(
            "base: entitlements {:?}, metadata {:?}, tombstone {:?}, {}{}",
            time(&state.base.entitlements),
            time(&state.base.metadata),
            state.base.tombstone,
            usages.join(", "),
            self.loss.map_or(String::new(), |(from, to)| format!(
                "; all data lost at {} to {} ms",
                from / 1000,
                to / 1000
            )),
        )];
        let mut events: Vec<&Event> = state.events.iter().collect();
        events.sort_by_key(|event| event.from);
        for event in events {
            let times = |usages: &[Item]| {
                usages
                    .iter()
                    .map(|item| {
                        let missing = if item.only_if_absent { " missing" } else { "" };
                        format!("{} {}{missing}", item.of.suffix(), item.at)
                    })
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let what = match &event.fact {
                Fact::Set { at, usages, .. } => format!("set {at} ({})", times(usages)),
                Fact::Usage(item) => format!("usage {}", times(std::slice::from_ref(item))),
                Fact::Purge { at } => format!("purge {at}"),
                Fact::SdkUsage { item, fenced } => format!(
                    "SDK {} usage {}, done at {} ms",
                    if *fenced { "" } else { "doubtful" },
                    times(std::slice::from_ref(item)),
                    event.to / 1000
                ),
                Fact::Sdk {
                    at, usages, fenced, ..
                } => format!(
                    "SDK {} set {at} ({}), done at {} ms",
                    if *fenced { "" } else { "doubtful" },
                    times(usages),
                    event.to / 1000
                ),
            };
            lines.push(format!(
                "at {} ms: chaos-{} {what}",
                event.from / 1000,
                event.seq
            ));
        }
        lines
    }
}
