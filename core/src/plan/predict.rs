//! Predicts the outcome of a step in `store/apply.lua` from the stored state. Commands use it to explain; it writes
//! nothing. A test applies every fixture and compares both.

use super::{Action, Condition, Item, Step};
use crate::keys;

/// The predicted outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// An SDK process is writing this owner.
    Locked,
    /// Nothing of this owner is cached, so nothing is written.
    NotCached,
    Done {
        /// The outcomes of the items, in the order of the step.
        items: Vec<ItemFate>,
        /// Whether the purge stores its tombstone.
        leaves_tombstone: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemFate {
    Written,
    /// The purge deletes it.
    Deleted,
    /// The stored state is newer.
    Stale,
    /// The owner was purged after the time of this state.
    Purged,
    /// It is written only where nothing is stored, and a value is stored.
    Kept,
    /// The message is older than the lifetime of keys, and no timestamp is stored.
    Expired,
}

/// What is stored that decides the outcome of a step.
#[derive(Debug, Default)]
pub struct Guards {
    /// An SDK process is writing this owner.
    pub is_locked: bool,
    pub tombstone: Option<f64>,
    /// Whether the customer of a usage is cached.
    pub has_customer: bool,
    /// Of each item, in the order of the step.
    pub items: Vec<Held>,
}

/// What is stored of one item.
#[derive(Debug, Clone, Copy, Default)]
pub struct Held {
    pub has_timestamp: bool,
    /// The time, if it is a finite number.
    pub at: Option<f64>,
    pub has_value: bool,
}

impl Step {
    /// Returns the keys that decide the outcome of the step.
    pub fn guards(&self) -> Vec<String> {
        let mut guards = vec![self.lock.clone(), self.tombstone.clone()];
        if let Action::UpdateUsage { customer } = &self.action {
            guards.push(keys::timestamp(customer));
        }
        for item in &self.items {
            guards.push(keys::timestamp(&item.key));
            if item.condition == Condition::Absent {
                guards.push(item.key.clone());
            }
        }
        guards
    }

    /// Predicts the outcome, where `stored` returns the values of its [`guards`](Self::guards).
    pub fn fate<'a>(
        &self,
        update_if_exists: bool,
        stored: impl Fn(&str) -> Option<&'a str>,
    ) -> Fate {
        let items = self.items.iter().map(|item| {
            let timestamp = stored(&keys::timestamp(&item.key));
            Held {
                has_timestamp: timestamp.is_some(),
                at: timestamp.and_then(number),
                has_value: stored(&item.key).is_some(),
            }
        });
        self.decide(
            update_if_exists,
            &Guards {
                is_locked: stored(&self.lock).is_some(),
                tombstone: stored(&self.tombstone).and_then(number),
                has_customer: match &self.action {
                    Action::UpdateUsage { customer } => {
                        stored(&keys::timestamp(customer)).is_some()
                    }
                    Action::SetCustomer | Action::Purge => false,
                },
                items: items.collect(),
            },
        )
    }

    /// Decides the outcome by the write rule.
    pub fn decide(&self, update_if_exists: bool, guards: &Guards) -> Fate {
        if guards.is_locked {
            return Fate::Locked;
        }
        let items = || self.items.iter().zip(&guards.items);
        let tombstone = guards.tombstone;
        let at = self.at as f64;
        match &self.action {
            Action::Purge => {
                let fate = |held: &Held| match self.at != 0 && held.at.is_some_and(|it| it > at) {
                    true => ItemFate::Stale,
                    false => ItemFate::Deleted,
                };
                return Fate::Done {
                    items: guards.items.iter().map(fate).collect(),
                    leaves_tombstone: self.at > 0 && !tombstone.is_some_and(|it| it >= at),
                };
            }
            Action::UpdateUsage { .. } if !guards.has_customer => return Fate::NotCached,
            Action::SetCustomer
                if update_if_exists && !guards.items.iter().any(|held| held.has_timestamp) =>
            {
                return Fate::NotCached;
            }
            Action::UpdateUsage { .. } | Action::SetCustomer => {}
        }
        let purged = self.at > 0 && tombstone.is_some_and(|it| it > at);
        let fate = |(item, held): (&Item, &Held)| match item.condition {
            Condition::Absent if held.has_timestamp || held.has_value => ItemFate::Kept,
            Condition::Present if held.at.is_none() => ItemFate::Expired,
            _ if item.at == 0 => ItemFate::Written,
            _ if purged => ItemFate::Purged,
            _ if held.at.is_some_and(|it| it > item.at as f64) => ItemFate::Stale,
            _ => ItemFate::Written,
        };
        Fate::Done {
            items: items().map(fate).collect(),
            leaves_tombstone: false,
        }
    }
}

impl Fate {
    /// Counts a finished step as the script does: the items written or deleted, tombstone included, and the stale
    /// ones. `None`: the message is older than the lifetime of keys, and no timestamp is stored.
    pub fn counts(items: &[ItemFate], leaves_tombstone: bool) -> Option<(u32, u32)> {
        let (mut written, mut stale, mut expired) = (u32::from(leaves_tombstone), 0, 0);
        for item in items {
            match item {
                ItemFate::Written | ItemFate::Deleted => written += 1,
                ItemFate::Stale | ItemFate::Purged => stale += 1,
                ItemFate::Expired => expired += 1,
                ItemFate::Kept => {}
            }
        }
        (expired == 0 || written > 0 || stale > 0).then_some((written, stale))
    }
}

/// Parses a stored time as Lua's `tonumber` does: surrounding blanks, fractions, exponents and
/// hexadecimal are accepted; other texts and infinite values are not.
fn number(text: &str) -> Option<f64> {
    lua_number(text).filter(|number| number.is_finite())
}

fn lua_number(text: &str) -> Option<f64> {
    let text = text.trim_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let (sign, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) if text.starts_with('-') => (-1.0, digits),
        Some(digits) => (1.0, digits),
        None => (1.0, text),
    };
    let hexadecimal = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    match hexadecimal {
        Some(digits) if digits.bytes().all(|it| it.is_ascii_hexdigit()) => {
            u64::from_str_radix(digits, 16)
                .ok()
                .map(|number| sign * number as f64)
        }
        Some(_) => None,
        None if digits.starts_with(['-', '+']) => None,
        None => digits.parse::<f64>().ok().map(|number| sign * number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_times_are_read_as_lua_reads_them() {
        for (text, expected) in [
            ("1763150385133", Some(1_763_150_385_133.0)),
            (" 12\n", Some(12.0)),
            ("1e3", Some(1000.0)),
            ("0x10", Some(16.0)),
            ("-0x10", Some(-16.0)),
            ("-5", Some(-5.0)),
            ("1.5", Some(1.5)),
            ("inf", None),
            ("nan", None),
            ("1e999", None),
            ("", None),
            ("0x", None),
            ("--5", None),
            ("12a", None),
            ("no time", None),
        ] {
            assert_eq!(number(text), expected, "{text:?}");
        }
    }
}
