//! Reads references to customers, resources, features and currencies: an object or only an id.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Id;
use super::read::IdVisitor;

/// The kinds of a [`Named`].
pub const CUSTOMER: usize = 0;
pub const RESOURCE: usize = 1;
pub const FEATURE: usize = 2;
pub const CURRENCY: usize = 3;

/// A reference: an object (`id` in webhooks, `refId` in GraphQL, or for example
/// `customerId`), or only the id. An id of another kind in the object does not count.
#[derive(Debug)]
pub struct Named<'a, const WHAT: usize>(Option<Id<'a>>);

impl<'a, const WHAT: usize> Named<'a, WHAT> {
    pub fn id(self) -> Option<Id<'a>> {
        self.0
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedFields<'a> {
    #[serde(borrow)]
    id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(alias = "ref_id", alias = "ref-id")]
    ref_id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(
        alias = "customer_id",
        alias = "customer-id",
        alias = "customerRefId",
        alias = "customer_ref_id",
        alias = "customer-ref-id"
    )]
    customer_id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(
        alias = "resource_id",
        alias = "resource-id",
        alias = "resourceRefId",
        alias = "resource_ref_id",
        alias = "resource-ref-id"
    )]
    resource_id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(
        alias = "feature_id",
        alias = "feature-id",
        alias = "featureRefId",
        alias = "feature_ref_id",
        alias = "feature-ref-id"
    )]
    feature_id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(
        alias = "currency_id",
        alias = "currency-id",
        alias = "currencyRefId",
        alias = "currency_ref_id",
        alias = "currency-ref-id"
    )]
    currency_id: Option<Id<'a>>,
}

impl<'de: 'a, 'a, const WHAT: usize> Deserialize<'de> for Named<'a, WHAT> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamedVisitor)
    }
}

struct NamedVisitor<const WHAT: usize>;

impl<'de, const WHAT: usize> Visitor<'de> for NamedVisitor<WHAT> {
    type Value = Named<'de, WHAT>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an id, or an id")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let fields = NamedFields::deserialize(MapAccessDeserializer::new(map))?;
        let own = match WHAT {
            CUSTOMER => fields.customer_id,
            RESOURCE => fields.resource_id,
            FEATURE => fields.feature_id,
            _ => fields.currency_id,
        };
        let ids = [fields.ref_id, own, fields.id];
        let filled = ids.into_iter().flatten().find(|Id(id)| !id.is_empty());
        Ok(Named(filled))
    }

    fn visit_borrowed_str<E: Error>(self, id: &'de str) -> Result<Self::Value, E> {
        not_json(id)?;
        IdVisitor.visit_borrowed_str(id).map(|id| Named(Some(id)))
    }

    fn visit_str<E: Error>(self, id: &str) -> Result<Self::Value, E> {
        not_json(id)?;
        IdVisitor.visit_str(id).map(|id| Named(Some(id)))
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<Self::Value, E> {
        IdVisitor.visit_u64(id).map(|id| Named(Some(id)))
    }

    fn visit_i64<E: Error>(self, id: i64) -> Result<Self::Value, E> {
        IdVisitor.visit_i64(id).map(|id| Named(Some(id)))
    }
}

/// An object in a string is not an id.
fn not_json<E: Error>(text: &str) -> Result<(), E> {
    match text.starts_with("{\"") {
        true => Err(E::custom("an object in a string, expected an id")),
        false => Ok(()),
    }
}
