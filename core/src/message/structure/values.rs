//! Reads the raw values of an object or a list, up to a limit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::wire::Text;

/// Maximum members and entries in memory, of all nested objects and lists.
pub const MAX_OPEN_VALUES: usize = 100_000;

/// The members of an object, each name once: the last value of a name counts, at the place of the first.
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a RawValue)>);

/// The entries of a list.
pub struct Entries<'a>(pub Vec<&'a RawValue>);

impl<'a> Members<'a> {
    /// Returns the members; `None` if it is not an object or has more than `most` members.
    pub fn of(object: &'a str, most: usize) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_str(object);
        json.deserialize_map(MembersVisitor { most }).ok()
    }

    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().find(|(it, _)| it == name)?;
        Some(found.1).filter(|raw| raw.get() != "null")
    }
}

impl<'a> Entries<'a> {
    /// Returns the entries; `None` if it is not a list or has more than `most` entries.
    pub fn of(list: &'a str, most: usize) -> Option<Self> {
        let mut json = serde_json::Deserializer::from_str(list);
        json.deserialize_seq(EntriesVisitor { most }).ok()
    }
}

struct MembersVisitor {
    most: usize,
}

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        let mut places: HashMap<Cow<'de, str>, usize> = HashMap::new();
        while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            if let Some(&place) = places.get(&name) {
                members[place].1 = value;
            } else if members.len() < self.most {
                places.insert(name.clone(), members.len());
                members.push((name, value));
            } else {
                return Err(A::Error::custom("too many members"));
            }
        }
        Ok(Members(members))
    }
}

struct EntriesVisitor {
    most: usize,
}

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut entries: Vec<&'de RawValue> = Vec::new();
        while let Some(entry) = list.next_element::<&'de RawValue>()? {
            if entries.len() == self.most {
                return Err(A::Error::custom("too many entries"));
            }
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}
