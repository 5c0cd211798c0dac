//! What a round leaves of a usage.

use std::sync::Arc;

use super::sorted::Sorted;
use super::{Fact, Found, Item, Metered, Model, Verdict};

impl Model {
    pub(super) fn usage(
        &self,
        index: usize,
        sorted: &Sorted,
        of: Metered,
        suffix: &str,
        found: Found<'_>,
    ) -> Verdict {
        let base = self.base(index);
        let mut right: Vec<(u64, Arc<str>)> =
            base.usages.get(suffix).cloned().into_iter().collect();
        let mut must: Option<u64> = right.first().map(|(at, _)| *at);
        let mut sdk_items = (Vec::new(), None::<u64>, None::<u64>);
        let mut sdk = |item: &Item, fate: Option<bool>| {
            let (told, sure, doubtful) = &mut sdk_items;
            match fate {
                Some(true) => *sure = (*sure).max(Some(item.at)),
                Some(false) => *doubtful = Some(doubtful.unwrap_or(u64::MAX).min(item.at)),
                None => return,
            }
            told.push((item.at, item.value.clone()));
        };
        let newer_purge = |at: u64| sorted.any_purge().any(|purge| purge > at);
        let out = |at: u64| sorted.tombstone.is_some_and(|tombstone| tombstone > at);
        let cacheable =
            !sorted.sdk.is_empty() || !sorted.doubtful.is_empty() || !sorted.sets.is_empty();
        for event in &self.states[index].events {
            match &event.fact {
                Fact::Set { at, usages, .. } => {
                    for item in usages.iter().filter(|item| item.of == of && !out(*at)) {
                        // Nothing deletes usage: what the base holds is never made up.
                        if !item.only_if_absent || !base.usages.contains_key(suffix) {
                            right.push((item.at, item.value.clone()));
                        }
                        if self.sure(event) && !newer_purge(*at) {
                            let least = if item.only_if_absent { 0 } else { item.at };
                            must = must.max(Some(least));
                        }
                    }
                }
                Fact::Usage(item) if item.of == of && !out(item.at) && cacheable => {
                    right.push((item.at, item.value.clone()));
                    let cached = sorted.doubtful.is_empty()
                        && sorted.sdk.iter().any(|write| {
                            write.to <= event.from
                                && sorted.purges.iter().all(|purge| purge.at < write.at)
                        });
                    if self.sure(event) && cached && !newer_purge(item.at) {
                        must = must.max(Some(item.at));
                    }
                }
                Fact::Sdk { usages, fenced, .. } => {
                    for item in usages.iter().filter(|item| item.of == of) {
                        sdk(item, self.fate(event, *fenced));
                    }
                }
                Fact::SdkUsage { item, fenced } if item.of == of => {
                    sdk(item, self.fate(event, *fenced));
                }
                Fact::Usage(_) | Fact::SdkUsage { .. } | Fact::Purge { .. } => {}
            }
        }
        let (of_sdk, sure, doubtful) = sdk_items;
        right.extend(of_sdk);
        must = must.max(sure);
        if let Some(doubtful) = doubtful {
            must = must.map(|must| must.min(doubtful));
        }
        let expected = || match must {
            Some(must) => (
                found.at().is_none_or(|at| at < must),
                format!("a usage told with a time of {must} or newer"),
            ),
            None => (false, "a usage told, or nothing".to_owned()),
        };
        match (found.at(), must) {
            (None, None) => Ok(()),
            (Some(at), must)
                if must.is_none_or(|must| at >= must)
                    && right.iter().any(|(told, value)| found.is(*told, value)) =>
            {
                Ok(())
            }
            _ => Err(expected()),
        }
    }
}
