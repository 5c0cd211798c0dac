//! The events of one owner and round, and what they leave of entitlements and metadata.

use std::sync::Arc;

use super::{Fact, Found, Model, Moment, Verdict, max};

/// A purge of the round.
#[derive(Clone, Copy)]
pub struct Purge {
    pub at: u64,
    pub from: Moment,
    pub sure: bool,
}

#[derive(Clone)]
pub struct Write {
    pub at: u64,
    pub value: Arc<str>,
    pub from: Moment,
    pub to: Moment,
}

/// The events of one owner and round, sorted by what they are.
#[derive(Default)]
pub struct Sorted {
    /// Time, entitlements, metadata, whether sure.
    pub sets: Vec<(u64, Arc<str>, Arc<str>, bool)>,
    pub purges: Vec<Purge>,
    pub tombstone: Option<u64>,
    pub sdk: Vec<Write>,
    pub doubtful: Vec<Write>,
}

impl Model {
    pub(super) fn sort(&self, index: usize) -> Sorted {
        let base = self.base(index);
        let mut sorted = Sorted {
            tombstone: base.tombstone,
            ..Sorted::default()
        };
        if let Some((at, value)) = base.entitlements {
            sorted.sdk.push(Write {
                at,
                value,
                from: 0,
                to: 0,
            });
        }
        for event in &self.states[index].events {
            match &event.fact {
                Fact::Set {
                    at,
                    entitlements,
                    metadata,
                    ..
                } => sorted.sets.push((
                    *at,
                    entitlements.clone(),
                    metadata.clone(),
                    self.sure(event),
                )),
                Fact::Purge { at } => sorted.purges.push(Purge {
                    at: *at,
                    from: event.from,
                    sure: self.sure(event),
                }),
                Fact::Sdk {
                    at,
                    entitlements,
                    fenced,
                    ..
                } => {
                    let write = Write {
                        at: *at,
                        value: entitlements.clone(),
                        from: event.from,
                        to: event.to,
                    };
                    match self.fate(event, *fenced) {
                        Some(true) => sorted.sdk.push(write),
                        Some(false) => sorted.doubtful.push(write),
                        None => {}
                    }
                }
                Fact::Usage(_) | Fact::SdkUsage { .. } => {}
            }
        }
        sorted
    }
}

impl Sorted {
    pub fn sure_purges(&self) -> impl Iterator<Item = u64> {
        let sure = self.purges.iter().filter(|purge| purge.sure);
        sure.map(|purge| purge.at).chain(self.tombstone)
    }

    pub fn any_purge(&self) -> impl Iterator<Item = u64> {
        self.purges
            .iter()
            .map(|purge| purge.at)
            .chain(self.tombstone)
    }

    pub fn entitlements(&self, found: Found<'_>) -> Verdict {
        let newest_set = max(self.sets.iter().filter(|set| set.3).map(|set| set.0));
        let newest_sdk = max(self.sdk.iter().map(|write| write.at));
        let newest_purge = max(self.sure_purges());
        let least = newest_set.max(newest_sdk).max(newest_purge);
        let doubtful = self.doubtful.iter().map(|write| write.at).min();
        let late = |at: u64| doubtful.is_some_and(|doubtful| at >= doubtful);
        // A purge at least as new, which may have been applied before `moment`.
        let purged_before = |at: u64, moment: Moment| {
            self.tombstone.is_some_and(|tombstone| tombstone >= at)
                || self
                    .purges
                    .iter()
                    .any(|purge| purge.at >= at && purge.from < moment)
        };
        let stands = |write: &Write| {
            let no_set_over_it =
                newest_set.is_none_or(|set| set <= write.at || purged_before(set, write.to));
            let no_purge_after = !self
                .purges
                .iter()
                .any(|purge| purge.sure && purge.at >= write.at && purge.from >= write.to);
            let no_sdk_over_it = self.sdk.iter().all(|other| {
                let later = other.from > write.to && other.at >= write.at;
                let earlier = other.to < write.from && other.at > write.at;
                !later && (!earlier || purged_in_round(&self.purges, other.at, write.to))
            });
            no_set_over_it && no_purge_after && no_sdk_over_it
        };
        let right = if found.is_absent() {
            let sets_gone = newest_set.is_none_or(|set| self.any_purge().any(|purge| purge >= set));
            let sdk_gone =
                newest_sdk.is_none_or(|sdk| self.purges.iter().any(|purge| purge.at >= sdk));
            (sets_gone && sdk_gone)
                || doubtful.is_some_and(|at| self.purges.iter().any(|purge| purge.at >= at))
        } else {
            let of_set = self
                .sets
                .iter()
                .any(|(at, value, _, _)| found.is(*at, value) && (Some(*at) >= least || late(*at)));
            let of_sdk = self
                .sdk
                .iter()
                .any(|write| found.is(write.at, &write.value) && (stands(write) || late(write.at)));
            let of_doubtful = self
                .doubtful
                .iter()
                .any(|write| found.is(write.at, &write.value));
            of_set || of_sdk || of_doubtful
        };
        if right {
            return Ok(());
        }
        let newest = newest_set.max(newest_sdk);
        let lost = found.at().is_none_or(|at| Some(at) < newest);
        Err((
            lost,
            format!(
                "newest set {newest_set:?}, of an SDK (or before) {newest_sdk:?}, newest purge {newest_purge:?}"
            ),
        ))
    }

    pub fn metadata(&self, found: Found<'_>, base: Option<&(u64, Arc<str>)>) -> Verdict {
        let sets = self.sets.iter().filter(|set| set.3).map(|set| set.0);
        let newest_set = max(sets.chain(base.map(|(at, _)| *at)));
        let newest_purge = max(self.sure_purges());
        let right = match found.at() {
            None => newest_set.is_none_or(|set| self.any_purge().any(|purge| purge >= set)),
            Some(at) => {
                Some(at) >= newest_set.max(newest_purge)
                    && (base.is_some_and(|(at, value)| found.is(*at, value))
                        || self
                            .sets
                            .iter()
                            .any(|(at, _, metadata, _)| found.is(*at, metadata)))
            }
        };
        if right {
            return Ok(());
        }
        let lost = found.at().is_none_or(|at| Some(at) < newest_set);
        Err((
            lost,
            format!("newest set {newest_set:?}, newest purge {newest_purge:?}"),
        ))
    }
}

fn purged_in_round(purges: &[Purge], at: u64, moment: Moment) -> bool {
    purges
        .iter()
        .any(|purge| purge.at >= at && purge.from < moment)
}
