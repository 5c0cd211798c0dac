//! Reads fields whose JSON type is looser, or stricter, than what serde derives.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::Event;
use super::named::{CUSTOMER, Named, RESOURCE};

/// Maximum entries of a list. An entry of 3 bytes in a body takes a few hundred bytes in memory.
const MAX_LIST_ENTRIES: usize = 32_768;

/// Reads a value where null differs from absent: `Some(None)` for null.
pub fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

/// Reads an object or null. serde would also read an array as the members of a struct, in their order.
pub fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.map(|Object(object)| object))
}

/// A value that is read only from a JSON object.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

/// Reads a list or null; null entries are skipped.
pub fn list<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T>(Vec<T>);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_seq(ListVisitor(PhantomData))
        }
    }

    struct ListVisitor<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
        type Value = List<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            // Growing step by step would move the whole list each time.
            let mut list = Vec::with_capacity(32);
            while let Some(next) = seq.next_element::<Option<T>>()? {
                if list.len() == MAX_LIST_ENTRIES {
                    return Err(A::Error::custom(format_args!(
                        "the list has more than {MAX_LIST_ENTRIES} entries; split it over several messages"
                    )));
                }
                list.extend(next);
            }
            Ok(List(list))
        }
    }

    Ok(Option::deserialize(deserializer)?.map(|List(list)| list))
}

/// An id; a number counts as its text.
#[derive(Debug, Clone)]
pub struct Id<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

pub struct IdVisitor;

impl<'de> Visitor<'de> for IdVisitor {
    type Value = Id<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id")
    }

    fn visit_borrowed_str<E>(self, id: &'de str) -> Result<Self::Value, E> {
        Ok(Id(Cow::Borrowed(id)))
    }

    fn visit_str<E>(self, id: &str) -> Result<Self::Value, E> {
        Ok(Id(Cow::Owned(id.to_owned())))
    }

    fn visit_u64<E>(self, id: u64) -> Result<Self::Value, E> {
        Ok(Id(Cow::Owned(id.to_string())))
    }

    fn visit_i64<E>(self, id: i64) -> Result<Self::Value, E> {
        Ok(Id(Cow::Owned(id.to_string())))
    }

    /// Reads a whole number that the sender writes with a fraction, as `12345.0`.
    fn visit_f64<E: Error>(self, id: f64) -> Result<Self::Value, E> {
        const EXACT: f64 = (1_u64 << 53) as f64;
        match id.fract() == 0.0 && id.abs() < EXACT {
            true => Ok(Id(Cow::Owned(format!("{id:.0}")))),
            false => Err(E::invalid_type(Unexpected::Float(id), &self)),
        }
    }
}

/// One customer of a purge, with its resource: an id, or an object.
#[derive(Debug)]
pub struct Party<'a> {
    /// Reads `customerId`, `customer` and the object's own id, in this order of precedence.
    pub customer: [Option<Id<'a>>; 3],
    pub resource: [Option<Id<'a>>; 2],
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartyFields<'a> {
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
    customer: Option<Named<'a, CUSTOMER>>,
    #[serde(borrow)]
    id: Option<Id<'a>>,
    #[serde(borrow)]
    #[serde(alias = "ref_id", alias = "ref-id")]
    ref_id: Option<Id<'a>>,
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
    resource: Option<Named<'a, RESOURCE>>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Party<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartyVisitor)
    }
}

struct PartyVisitor;

impl PartyVisitor {
    fn alone(id: Id<'_>) -> Party<'_> {
        Party {
            customer: [Some(id), None, None],
            resource: [None, None],
        }
    }
}

impl<'de> Visitor<'de> for PartyVisitor {
    type Value = Party<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a customer id, or a customer id")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let fields = PartyFields::deserialize(MapAccessDeserializer::new(map))?;
        let filled = |id: &Id<'_>| !id.0.is_empty();
        Ok(Party {
            customer: [
                fields.customer_id,
                fields.customer.and_then(Named::id),
                fields.ref_id.filter(filled).or(fields.id),
            ],
            resource: [fields.resource_id, fields.resource.and_then(Named::id)],
        })
    }

    fn visit_borrowed_str<E: Error>(self, id: &'de str) -> Result<Self::Value, E> {
        IdVisitor.visit_borrowed_str(id).map(Self::alone)
    }

    fn visit_str<E: Error>(self, id: &str) -> Result<Self::Value, E> {
        IdVisitor.visit_str(id).map(Self::alone)
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<Self::Value, E> {
        IdVisitor.visit_u64(id).map(Self::alone)
    }

    fn visit_i64<E: Error>(self, id: i64) -> Result<Self::Value, E> {
        IdVisitor.visit_i64(id).map(Self::alone)
    }
}

/// The value of `payload`: an event, read in the same pass, or another value.
#[derive(Debug)]
pub enum Nested<'a> {
    Event(Box<Event<'a>>),
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Nested<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NestedVisitor)
    }
}

struct NestedVisitor;

impl<'de> Visitor<'de> for NestedVisitor {
    type Value = Nested<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let event = Box::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Nested::Event(event))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Nested::Other)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Nested::Other)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Nested::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Nested::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Nested::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Nested::Other)
    }
}
