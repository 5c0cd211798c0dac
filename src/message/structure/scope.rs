//! What an object tells of the events in it: whose they are, what they are called, when they were.

use serde_json::value::RawValue;

use super::values::{MAX_OPEN_VALUES, Members};
use super::vocabulary::spelled;
use crate::message::Millis;
use crate::message::fields::{name_of_attributes, read_time, string};
use crate::message::kind::{Meaning, is_past, meaning};

/// An object on the way from the body to an event.
#[derive(Debug, Default)]
pub struct Scope {
    pub customer: Option<String>,
    pub resource: Option<String>,
    pub feature: Option<String>,
    pub currency: Option<String>,
    pub access_denied_reason: Option<String>,
    /// Times as they stand in the body, by the name of their field.
    pub times: Vec<(&'static str, String)>,
    pub timestamp: Option<Millis>,
    /// `time` or `Timestamp` of an envelope.
    pub envelope: Option<Millis>,
    pub trace_id: Option<String>,
    pub name: Option<Name>,
}

/// The name of a kind, and what it means.
#[derive(Debug, Clone)]
pub struct Name {
    pub text: String,
    pub meaning: Meaning,
    /// The field that has it.
    pub field: &'static str,
}

/// Fields that hold the name of a kind and nothing else, in order of precedence.
const NAME_FIELDS: [&str; 7] = [
    "type",
    "eventType",
    "eventName",
    "event",
    "detail-type",
    "messageType",
    "kind",
];
/// Fields that may as well hold the name of something else.
const OTHER_NAME_FIELDS: [&str; 3] = ["name", "topic", "action"];
/// Objects beside an event that tell about it.
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

/// No time is written longer than this.
const MAX_TIME_BYTES: usize = 64;
/// No kind has a longer name.
const MAX_NAME_BYTES: usize = 256;

impl Scope {
    /// Of an object that stands under `key`.
    pub fn of(members: &Members<'_>, key: Option<&str>) -> Self {
        let mut scope = Self::default();
        let mut names = Names::default();
        scope.learn(members, &mut names);
        if key.is_some_and(is_header) {
            // What a header names is the event beside it.
            names = Names::default();
        }
        for (name, raw) in &members.0 {
            if is_header(name)
                && raw.get().starts_with('{')
                && let Some(header) = Members::of(raw.get(), MAX_OPEN_VALUES)
            {
                scope.learn(&header, &mut names);
                if let Some(text) = name_of_attributes(raw) {
                    names.add("message attribute", text, false);
                }
            }
        }
        if let Some(key) = key.filter(|key| !is_header(key)) {
            names.add("field", key.to_owned(), true);
        }
        scope.name = names.best();
        scope
    }

    fn learn(&mut self, members: &Members<'_>, names: &mut Names) {
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
                "timestamp" => self.timestamp = self.timestamp.or_else(|| known_time(raw)),
                "time" => self.envelope = self.envelope.or_else(|| known_time(raw)),
                _ => {}
            }
        }
        // An id of its own goes before that of an object beside it.
        for (name, raw) in &members.0 {
            match spelled(name) {
                Some("customer") => set(&mut self.customer, named(raw, "customerId")),
                Some("resource") => set(&mut self.resource, named(raw, "resourceId")),
                Some("feature") => set(&mut self.feature, named(raw, "featureId")),
                Some("currency") => set(&mut self.currency, named(raw, "currencyId")),
                _ => {}
            }
        }
        for (fields, is_weak) in [(&NAME_FIELDS[..], false), (&OTHER_NAME_FIELDS[..], true)] {
            for &field in fields {
                for (name, raw) in &members.0 {
                    if spelled(name) == Some(field)
                        && let Some(text) = string(raw)
                    {
                        names.add(field, text.into_owned(), is_weak);
                    }
                }
            }
        }
    }
}

/// Whether an object under this name tells about the event beside it.
pub fn is_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['_', '-'], "");
    HEADERS.contains(&name.as_str())
}

/// Candidates for the name of a kind.
#[derive(Default)]
pub struct Names(Vec<Name>);

impl Names {
    /// A `weak` one counts only if it tells a kind beyond doubt.
    pub fn add(&mut self, field: &'static str, text: String, is_weak: bool) {
        // Texts that stand where names do, such as an event as JSON under `event`.
        if text.len() > MAX_NAME_BYTES || text.contains(['{', '[', '"']) {
            return;
        }
        let meaning = meaning(&text);
        let counts = match meaning {
            Meaning::Effect(_) => true,
            Meaning::NoEffect(_) => !is_weak || is_past(&text),
            // That of SNS names the envelope.
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

    /// The first that tells a known kind, or else the first.
    fn best(mut self) -> Option<Name> {
        let known = |name: &Name| name.meaning != Meaning::Unknown;
        let place = self.0.iter().position(known).unwrap_or(0);
        (place < self.0.len()).then(|| self.0.swap_remove(place))
    }
}

/// A known time; what is not one is passed over.
fn known_time(raw: &RawValue) -> Option<Millis> {
    read_time(raw).filter(|&time| time != 0)
}

fn id(raw: &RawValue) -> Option<String> {
    if let Some(text) = string(raw) {
        return Some(text.into_owned());
    }
    let number: Option<i128> = raw.get().parse().ok();
    number.map(|number| number.to_string())
}

/// The id of an object, or the id alone.
fn named(raw: &RawValue, own: &str) -> Option<String> {
    if !raw.get().starts_with('{') {
        return id(raw);
    }
    let members = Members::of(raw.get(), MAX_OPEN_VALUES)?;
    ["refId", "id", own].into_iter().find_map(|wanted| {
        let found = members
            .0
            .iter()
            .find(|(name, raw)| spelled(name) == Some(wanted) && raw.get() != "null");
        id(found?.1).filter(|it| !it.is_empty())
    })
}
