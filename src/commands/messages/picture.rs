//! Predicts the outcome of messages in Redis, one after the other, without writing.

use std::collections::HashMap;

use entitlement_sync::config::WriteConfig;
use entitlement_sync::keys;
use entitlement_sync::plan::{Fate, ItemFate, Step};
use entitlement_sync::store::{AdminClient, Applied, StoreError};

/// The state of Redis after the messages predicted so far.
pub struct Picture {
    redis: AdminClient,
    update_if_exists: bool,
    changed: HashMap<String, Option<String>>,
}

/// The predicted outcome of a step, and the stored values.
#[derive(Debug)]
pub struct Predicted {
    pub fate: Fate,
    pub tombstone: Option<String>,
    /// For each item, its stored value and time.
    pub stored: Vec<(Option<String>, Option<String>)>,
}

impl Picture {
    pub fn new(redis: AdminClient, writes: &WriteConfig) -> Self {
        Self {
            redis,
            update_if_exists: writes.update_if_exists,
            changed: HashMap::new(),
        }
    }

    /// Predicts the outcome of a step after the earlier steps. Only reads.
    pub async fn predict(&mut self, step: &Step) -> Result<Predicted, StoreError> {
        let mut wanted = step.guards();
        wanted.extend(step.items.iter().map(|item| item.key.clone()));
        let values = self.redis.values(&wanted).await?;
        let mut held: HashMap<String, Option<String>> = wanted.into_iter().zip(values).collect();
        for (key, value) in &mut held {
            if let Some(changed) = self.changed.get(key) {
                value.clone_from(changed);
            }
        }
        let stored = |key: &str| held.get(key).and_then(Option::as_deref);
        let owned = |key: &str| stored(key).map(str::to_owned);
        let predicted = Predicted {
            fate: step.fate(self.update_if_exists, stored),
            tombstone: owned(&step.tombstone),
            stored: step
                .items
                .iter()
                .map(|item| (owned(&item.key), owned(&keys::timestamp(&item.key))))
                .collect(),
        };
        self.take_over(step, &predicted.fate);
        Ok(predicted)
    }

    fn take_over(&mut self, step: &Step, fate: &Fate) {
        let Fate::Done {
            items,
            leaves_tombstone,
        } = fate
        else {
            return;
        };
        for (item, fate) in step.items.iter().zip(items) {
            let (value, at) = match fate {
                ItemFate::Written => (Some(item.value.clone()), Some(item.at.to_string())),
                ItemFate::Deleted => (None, None),
                ItemFate::Stale | ItemFate::Purged | ItemFate::Kept | ItemFate::Expired => continue,
            };
            self.changed.insert(item.key.clone(), value);
            self.changed.insert(keys::timestamp(&item.key), at);
        }
        if *leaves_tombstone {
            let at = Some(step.at.to_string());
            self.changed.insert(step.tombstone.clone(), at);
        }
    }
}

/// Converts a prediction to the reply that Redis would give.
pub fn counts(fate: &Fate) -> Applied {
    match fate {
        Fate::Locked => Applied::Locked,
        Fate::NotCached => Applied::NotCached,
        Fate::Done {
            items,
            leaves_tombstone,
        } => {
            let of = |wanted: &[ItemFate]| items.iter().filter(|it| wanted.contains(it)).count();
            let written = of(&[ItemFate::Written, ItemFate::Deleted]);
            let stale = of(&[ItemFate::Stale, ItemFate::Purged]);
            if written == 0 && stale == 0 && of(&[ItemFate::Expired]) > 0 {
                return Applied::Expired;
            }
            let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
            Applied::Written {
                written: count(written + usize::from(*leaves_tombstone)),
                stale: count(stale),
            }
        }
    }
}
