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
            return Err(format!("the {what} id is empty"));
        }
        if let Some(part) = keys::collision_of_owner(id) {
            return Err(collides(what, id, part));
        }
    }
    Ok(())
}

/// Checks an id that is the last part of its key.
pub fn suffix(what: &str, id: &str) -> anyhow::Result<()> {
    match keys::collision_of_suffix(id) {
        None => Ok(()),
        Some(part) => Err(Failure::with(USAGE, collides(what, id, part))),
    }
}

fn collides(what: &str, id: &str, part: &str) -> String {
    format!(
        "{what} id \"{id}\" contains \"{part}\", so its keys would collide with another entity's"
    )
}
