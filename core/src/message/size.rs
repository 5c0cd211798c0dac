//! Limits the size of one message: memory is bounded, and Redis serves no other client during a call.

use super::{Entity, Invalid, Metered, StateChange};

/// Maximum bytes of the ids in the keys of one message.
const MAX_KEY_BYTES: usize = 4 << 20;
/// Maximum entitlements, or customers of a purge, in one message.
const MAX_ENTRIES: usize = 32_768;
/// Maximum enum values of all entitlements in one message.
const MAX_ENUM_VALUES: usize = 131_072;

/// The counted sizes of the changes of a message.
#[derive(Debug, Default)]
pub(super) struct Size {
    entries: usize,
    enum_values: usize,
    key_bytes: usize,
}

impl Size {
    pub fn add(&mut self, change: &StateChange<'_>) {
        match change {
            StateChange::SetCustomer {
                owner,
                entitlements,
                credits,
                ..
            } => {
                self.entries += entitlements.len() + credits.len();
                self.key_bytes += owner.length();
                for entitlement in entitlements {
                    self.enum_values += entitlement.enum_values.len();
                    let feature = entitlement.feature.as_ref().filter(|it| it.is_metered());
                    self.key_bytes += feature.map_or(0, |it| owner.length() + it.id.len());
                }
                let currencies = credits.iter().filter_map(|it| it.currency.as_ref());
                self.key_bytes += currencies
                    .map(|currency| owner.length() + currency.len())
                    .sum::<usize>();
            }
            StateChange::UpdateUsage { owner, of, .. } => {
                let (Metered::Feature(id) | Metered::Credit(id)) = of;
                self.entries += 1;
                self.key_bytes += owner.length() + id.len();
            }
            StateChange::Purge { owners, .. } => {
                self.entries += owners.len();
                self.key_bytes += owners.iter().map(Entity::length).sum::<usize>();
            }
        }
    }

    /// Returns an error if a size is over its limit.
    pub fn check(&self) -> Result<(), Invalid> {
        for (count, most, what) in [
            (
                self.entries,
                MAX_ENTRIES,
                "entitlements, usages and customers",
            ),
            (self.enum_values, MAX_ENUM_VALUES, "enumValues"),
            (self.key_bytes, MAX_KEY_BYTES, "bytes of ids in keys"),
        ] {
            if count > most {
                return Err(Invalid::new(format!(
                    "the message has {count} {what}, and the limit is {most}; split it over several messages"
                )));
            }
        }
        Ok(())
    }
}
