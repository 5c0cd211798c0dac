//! Ids that operators give, refused as the worker refuses them in messages.

use entitlement_sync::keys::{self, Owner};

use super::{Failure, USAGE};

/// A customer, or a resource of it; an empty resource is none.
pub fn owner<'a>(customer: &'a str, resource: Option<&'a str>) -> anyhow::Result<Owner<'a>> {
    let resource = resource.filter(|id| !id.is_empty());
    for (what, id) in [("customer", Some(customer)), ("resource", resource)] {
        let Some(id) = id else { continue };
        if id.is_empty() {
            return Err(Failure::with(USAGE, format!("the {what} id is empty")));
        }
        if let Some(part) = keys::collision_of_owner(id) {
            return Err(refused(what, id, part));
        }
    }
    Ok(Owner { customer, resource })
}

/// An id that comes last in its key.
pub fn suffix(what: &str, id: &str) -> anyhow::Result<()> {
    keys::collision_of_suffix(id).map_or(Ok(()), |part| Err(refused(what, id, part)))
}

fn refused(what: &str, id: &str, part: &str) -> anyhow::Error {
    let text = format!(
        "{what} \"{id}\": no such id has keys, since \"{part}\" in it would make them those of another"
    );
    Failure::with(USAGE, text)
}
