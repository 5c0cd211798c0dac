//! Chooses and checks the ids of customers, resources, features and currencies.

use std::borrow::Cow;

use super::wire::{Id, Named, Text};
use super::{Entity, Invalid};
use crate::keys::{self, Collision};

/// The maximum length of an id. Real ids are short, each key contains them, and a message may name thousands of keys.
const MAX_ID_BYTES: usize = 1024;

/// Returns the owner that an event names.
pub(super) fn entity<'a>(
    customers: impl IntoIterator<Item = Option<Id<'a>>>,
    resource: Option<Cow<'a, str>>,
) -> Result<Entity<'a>, Invalid> {
    let customer =
        first_filled(customers.into_iter().flatten()).ok_or_else(|| missing("customer id"))?;
    for (what, id) in [
        ("customer id", Some(&customer)),
        ("resource id", resource.as_ref()),
    ] {
        let Some(id) = id else { continue };
        check_length(id, what)?;
        refuse_collision(what, keys::collision_of_owner(id))?;
    }
    Ok(Entity { customer, resource })
}

/// Returns the first non-empty id, which is the last part of its key.
pub(super) fn last_id<'a>(
    ids: impl IntoIterator<Item = Option<Id<'a>>>,
    what: &str,
) -> Result<Cow<'a, str>, Invalid> {
    optional_last_id(ids, what)?.ok_or_else(|| missing(what))
}

/// Returns the first non-empty id, or `None`.
pub(super) fn optional_last_id<'a>(
    ids: impl IntoIterator<Item = Option<Id<'a>>>,
    what: &str,
) -> Result<Option<Cow<'a, str>>, Invalid> {
    let Some(id) = first_filled(ids.into_iter().flatten()) else {
        return Ok(None);
    };
    check_length(&id, what)?;
    refuse_collision(what, keys::collision_of_suffix(&id))?;
    Ok(Some(id))
}

pub(super) fn missing(what: &str) -> Invalid {
    Invalid::new(format!("{what} is missing or empty"))
}

fn refuse_collision(what: &str, collision: Option<Collision>) -> Result<(), Invalid> {
    collision.map_or(Ok(()), |it| Err(Invalid::new(format!("{what} {it}"))))
}

fn check_length(id: &str, what: &str) -> Result<(), Invalid> {
    match id.len() > MAX_ID_BYTES {
        true => Err(Invalid::new(format!(
            "{what} is {} bytes long, and the limit is {MAX_ID_BYTES}",
            id.len()
        ))),
        false => Ok(()),
    }
}

/// Treats an empty string as absent.
pub(super) fn filled(text: Option<Text<'_>>) -> Option<Cow<'_, str>> {
    text.map(|Text(text)| text).filter(|text| !text.is_empty())
}

/// Treats an empty id as absent.
pub(super) fn filled_id(id: Option<Id<'_>>) -> Option<Cow<'_, str>> {
    first_filled(id)
}

/// Returns the first id that is not empty.
pub(super) fn first_filled<'a>(ids: impl IntoIterator<Item = Id<'a>>) -> Option<Cow<'a, str>> {
    let mut ids = ids.into_iter().map(|Id(id)| id);
    ids.find(|id| !id.is_empty())
}

/// Returns the id of an object, where null differs from absent.
pub(super) fn object_id<const WHAT: usize>(
    named: Option<Option<Named<'_, WHAT>>>,
) -> Option<Option<Id<'_>>> {
    named.map(|named| named.and_then(Named::id))
}
