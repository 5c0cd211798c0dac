//! Checks ids given as arguments by the worker's rules for ids in messages.

use entitlement_sync::keys::{self, Owner};

use super::{Failure, USAGE};

/// Parses a customer, or a resource of it; an empty resource means none.
pub fn owner<'a>(customer: &'a str, resource: Option<&'a str>) -> anyhow::Result<Owner<'a>> {
    let resource = resource.filter(|id| !id.is_empty());
    let owner = Owner { customer, resource };
    match check(owner) {
        Ok(()) => Ok(owner),
        Err(text) => Err(Failure::with(USAGE, text)),
    }
}

/// Checks that the keys of an owner are unambiguous.
pub fn check(owner: Owner<'_>) -> Result<(), String> {
    for (what, id) in [
        ("customer", Some(owner.customer)),
        ("resource", owner.resource),
    ] {
        let Some(id) = id else { continue };
        if id.is_empty() {
            return Err(format!("{what} id is missing or empty"));
        }
        if let Some(collision) = keys::collision_of_owner(id) {
            return Err(format!("{what} id \"{id}\" {collision}"));
        }
    }
    Ok(())
}

/// Checks an id that is the last part of its key.
pub fn suffix(what: &str, id: &str) -> anyhow::Result<()> {
    match keys::collision_of_suffix(id) {
        None => Ok(()),
        Some(collision) => Err(Failure::with(
            USAGE,
            format!("{what} id \"{id}\" {collision}"),
        )),
    }
}
