//! Collects from an object the owner, the name and the times of the events in it.

use serde_json::value::RawValue;

use super::values::{Entries, MAX_OPEN_VALUES, Members};
use super::vocabulary::{is_entity, spelled, spelled_in_header};
use crate::message::fields::{name_of_attributes, read_time, string};
use crate::message::kind::{Meaning, is_past, meaning};
use crate::message::wire::Id;
use crate::message::{Invalid, Millis};

/// An object between the body and an event.
#[derive(Debug, Default)]
pub struct Scope {
    pub customer: Option<String>,
    pub resource: Option<String>,
    pub feature: Option<String>,
    pub currency: Option<String>,
    pub access_denied_reason: Option<String>,
    /// Unparsed times, by the name of their field.
    pub times: Vec<(&'static str, String)>,
    pub timestamp: Option<Result<Millis, Invalid>>,
    /// `time` or `Timestamp` of an envelope.
    pub envelope: Option<Millis>,
    pub trace_id: Option<String>,
    pub name: Option<Name>,
}

/// The name of a kind, and its meaning.
#[derive(Debug, Clone)]
pub struct Name {
    pub text: String,
    pub meaning: Meaning,
    /// The field that has it.
    pub field: &'static str,
}

impl Name {
    /// Returns whether it is a kind with an effect, under a field that holds only kinds.
    pub fn is_beyond_doubt(&self) -> bool {
        NAME_FIELDS.contains(&self.field) && matches!(self.meaning, Meaning::Effect(_))
    }
}

/// Fields that hold only the name of a kind, in order of precedence.
pub const NAME_FIELDS: [&str; 7] = [
    "type",
    "eventType",
    "eventName",
    "event",
    "detail-type",
    "messageType",
    "kind",
];
/// Fields that may also hold the name of something else.
const OTHER_NAME_FIELDS: [&str; 3] = ["name", "topic", "action"];
/// Objects beside an event that describe it.
const HEADERS: [&str; 8] = [
    "metadata",
    "meta",
    "header",
    "headers",
    "attributes",
    "messageattributes",
    "context",
    "properties",
];

/// Maximum length of a time.
const MAX_TIME_BYTES: usize = 64;
/// Maximum length of the name of a kind.
const MAX_NAME_BYTES: usize = 256;

/// Finds the published spelling of a name, in an object or in a header.
type Spelling = fn(&str) -> Option<&'static str>;

impl Scope {
    /// Reads an object under `key`.
    pub fn of(members: &Members<'_>, key: Option<&str>) -> Self {
        let mut scope = Self::default();
        let mut names = Names::default();
        scope.learn(members, spelled);
        // A header names the event beside it.
        if !key.is_some_and(tells_of_beside) {
            names.learn(members, spelled);
        }
        for (name, raw) in &members.0 {
            let inner = || Members::of(raw.get(), MAX_OPEN_VALUES);
            if is_header(name) {
                let Some(header) = inner().or_else(|| pairs(raw)) else {
                    continue;
                };
                scope.learn(&header, spelled_in_header);
                names.learn(&header, spelled_in_header);
                if let Some(text) = name_of_attributes(raw) {
                    names.add("message attribute", text, false);
                }
            } else if is_event(name)
                && let Some(event) = inner()
            {
                names.learn(&event, spelled);
            }
        }
        if let Some(key) = key.filter(|key| !is_header(key)) {
            names.add("key", key.to_owned(), true);
        }
        scope.name = match key {
            _ if is_attribute(members) => None,
            Some(key) if is_entity(key) => names.beyond_doubt(),
            _ => names.best(),
        };
        scope
    }

    fn learn(&mut self, members: &Members<'_>, spelled: Spelling) {
        let set = |place: &mut Option<String>, found: Option<String>| {
            if place.is_none() {
                *place = found.filter(|it| !it.is_empty());
            }
        };
        for (name, raw) in &members.0 {
            if raw.get() == "null" {
                continue;
            }
            let Some(known) = spelled(name) else { continue };
            match known {
                "customerId" => set(&mut self.customer, id(raw)),
                "resourceId" => set(&mut self.resource, id(raw)),
                "featureId" => set(&mut self.feature, id(raw)),
                "currencyId" => set(&mut self.currency, id(raw)),
                "accessDeniedReason" => {
                    set(&mut self.access_denied_reason, string(raw).map(Into::into));
                }
                "traceId" => set(&mut self.trace_id, string(raw).map(Into::into)),
                "entitlementsUpdatedAt" | "usageUpdatedAt" if raw.get().len() <= MAX_TIME_BYTES => {
                    self.times.push((known, raw.get().to_owned()));
                }
                "timestamp" if name == "Timestamp" => {
                    self.envelope = self.envelope.or_else(|| known_time(raw));
                }
                "timestamp" if self.timestamp.is_none() => {
                    self.timestamp = match read_time(raw) {
                        Some(0) => None,
                        Some(time) => Some(Ok(time)),
                        None => Some(Err(Invalid::new(
                            "timestamp is not a valid time; use ISO 8601 or epoch milliseconds",
                        ))),
                    };
                }
                "time" => self.envelope = self.envelope.or_else(|| known_time(raw)),
                _ => {}
            }
        }
        // Its own id takes precedence over that of an object beside it.
        for (name, raw) in &members.0 {
            match spelled(name) {
                Some("customer") => set(&mut self.customer, named(raw, "customerId")),
                Some("resource") => set(&mut self.resource, named(raw, "resourceId")),
                Some("feature") => set(&mut self.feature, named(raw, "featureId")),
                Some("currency") => set(&mut self.currency, named(raw, "currencyId")),
                _ => {}
            }
        }
    }
}

/// Returns whether an object under this name describes the event beside it.
fn is_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['_', '-'], "");
    HEADERS.contains(&name.as_str())
}

/// Returns whether the object around one under this name has already read its data.
pub fn tells_of_beside(name: &str) -> bool {
    is_header(name) || is_event(name)
}

fn is_event(name: &str) -> bool {
    spelled(name) == Some("event")
}

/// Returns whether an object is the value of a message attribute; its type is not a kind.
fn is_attribute(members: &Members<'_>) -> bool {
    let has = |wanted: &[&str]| {
        let mut names = members.0.iter().map(|(name, _)| name.to_ascii_lowercase());
        names.any(|name| wanted.contains(&name.as_str()))
    };
    has(&["type", "datatype"]) && has(&["value", "stringvalue", "binaryvalue"])
}

/// Reads a header as a list of names with their values, as in Kafka.
fn pairs(raw: &RawValue) -> Option<Members<'_>> {
    let Entries(entries) = Entries::of(raw.get(), MAX_OPEN_VALUES)?;
    let pairs = entries.into_iter().filter_map(|entry| {
        let entry = Members::of(entry.get(), MAX_OPEN_VALUES)?;
        let first = |names: [&str; 4]| names.into_iter().find_map(|name| entry.get(name));
        let name = string(first(["key", "name", "Key", "Name"])?)?;
        Some((
            name,
            first(["value", "stringValue", "Value", "StringValue"])?,
        ))
    });
    Some(Members(pairs.collect()))
}

/// Candidates for the name of a kind.
#[derive(Default)]
pub struct Names(Vec<Name>);

impl Names {
    /// Adds the values of fields that hold a kind.
    fn learn(&mut self, members: &Members<'_>, spelled: Spelling) {
        for (fields, is_weak) in [(&NAME_FIELDS[..], false), (&OTHER_NAME_FIELDS[..], true)] {
            for &field in fields {
                for (name, raw) in &members.0 {
                    if spelled(name) == Some(field)
                        && let Some(text) = string(raw)
                    {
                        self.add(field, text.into_owned(), is_weak);
                    }
                }
            }
        }
    }

    /// Adds a name. A `weak` name counts only if it is exactly a kind.
    pub fn add(&mut self, field: &'static str, text: String, is_weak: bool) {
        // Texts in the place of a name, for example an event as JSON under `event`.
        if text.len() > MAX_NAME_BYTES || text.contains(['{', '[', '"']) {
            return;
        }
        let meaning = meaning(&text);
        let counts = match meaning {
            Meaning::Effect(_) => true,
            Meaning::NoEffect(_) => !is_weak || is_past(&text),
            // The name in SNS is that of the envelope.
            Meaning::Unknown => !is_weak && !text.is_empty() && text != "Notification",
        };
        if counts {
            self.0.push(Name {
                text,
                meaning,
                field,
            });
        }
    }

    /// Returns the first name of a kind with an effect, under a field that holds only kinds. A customer
    /// may be called "Customer deleted".
    fn beyond_doubt(self) -> Option<Name> {
        self.0.into_iter().find(Name::is_beyond_doubt)
    }

    /// Returns the first name of a known kind, or else the first.
    fn best(mut self) -> Option<Name> {
        let known = |name: &Name| name.meaning != Meaning::Unknown;
        let place = self.0.iter().position(known).unwrap_or(0);
        (place < self.0.len()).then(|| self.0.swap_remove(place))
    }
}

/// Returns a known time; other values are skipped.
fn known_time(raw: &RawValue) -> Option<Millis> {
    read_time(raw).filter(|&time| time != 0)
}

fn id(raw: &RawValue) -> Option<String> {
    if let Some(text) = string(raw) {
        return Some(text.into_owned());
    }
    let id: Option<Id<'_>> = serde_json::from_str(raw.get()).ok();
    id.map(|Id(id)| id.into_owned())
}

/// Returns the id of an object, or the id alone.
fn named(raw: &RawValue, own: &str) -> Option<String> {
    if !raw.get().starts_with('{') {
        return id(raw);
    }
    let members = Members::of(raw.get(), MAX_OPEN_VALUES)?;
    ["refId", own, "id"].into_iter().find_map(|wanted| {
        let found = members
            .0
            .iter()
            .find(|(name, raw)| spelled(name) == Some(wanted) && raw.get() != "null");
        id(found?.1).filter(|it| !it.is_empty())
    })
}
