//! Searches any JSON for objects with a change: the second pass. It runs only if the
//! first pass finds nothing, so it is simple rather than fast; its input is bounded.

mod aws;
mod carried;
mod conclusion;
mod scope;
mod text;
mod values;
mod vocabulary;

use serde_json::value::RawValue;

use super::fields::string;
use super::kind::{Kind, Meaning, meaning};
use super::known::{self, Missed};
use super::read::{Attributes, Notice, Reading, Unreadable};
use super::size::Size;
use super::{Change, Invalid};
use aws::{BODY_IN_S3, is_pointer_in_text, is_pointer_to_s3, notice_in};
use carried::with_usage;
pub(super) use scope::NAME_FIELDS;
use scope::{Name, Scope, tells_of_beside};
use text::{MAX_UNPACKED_BYTES, rewrite};
pub(super) use values::{Entries, MAX_OPEN_VALUES, Members};
pub(super) use vocabulary::spelled_in_header;
use vocabulary::{is_on_offer, spelled};

/// Maximum depth of nested objects and lists.
const MAX_LEVELS: usize = 9;
/// Maximum values to visit.
const MAX_VALUES: usize = 100_000;
/// Maximum depth of nested strings to unpack.
const MAX_STRINGS: usize = 8;

/// Reads a body that the first pass did not understand.
pub(super) fn read(
    body: &str,
    attributes: &Attributes,
    first: Missed,
) -> Result<Reading<'static>, Unreadable> {
    let refuse = |reason: Invalid| Unreadable {
        kind: first.kind.unwrap_or(Kind::Other),
        reason,
    };
    let text = text::clean(body);
    let unpacked;
    let mut json: &str = text.trim();
    if serde_json::from_str::<&RawValue>(json).is_err() {
        // Not JSON; it may be packed JSON.
        let packed = text::unpack(json, MAX_UNPACKED_BYTES);
        unpacked = packed.filter(|it| serde_json::from_str::<&RawValue>(it).is_ok());
        match &unpacked {
            Some(text) => json = text.trim(),
            None if is_pointer_in_text(json) => return Err(refuse(Invalid::new(BODY_IN_S3))),
            None => return Err(refuse(first.reason)),
        }
    }
    // A known shape, except for details that the first pass does not accept.
    let mut once = String::with_capacity(json.len());
    rewrite(json, false, &mut once);
    if let Ok(reading) = known::read(&once, attributes) {
        return Ok(reading.into_owned());
    }
    drop(once);

    let mut search = Search::new(attributes);
    search.visit(json, None, MAX_LEVELS);
    search.finish(first)
}

struct Search<'s> {
    attributes: &'s Attributes,
    scopes: Vec<Scope>,
    path: String,
    values: usize,
    /// Members and entries of the objects and lists that are being visited.
    open: usize,
    strings: usize,
    /// The bytes that may still be unpacked.
    room: usize,
    /// The bytes that the events of changes may still take.
    room_for_events: usize,
    size: Size,
    found: Vec<(Kind, Option<Name>, Change<'static>)>,
    refused: Option<(Kind, Invalid)>,
    /// Whether a kind with an effect was named, but no change was found for it.
    lacking: Option<Kind>,
    without_effect: Option<Name>,
    unknown: Option<Name>,
    /// The first entry of an unknown kind, and without a change, in a list of events.
    unknown_entry: Option<Name>,
    notice: Option<Notice>,
    /// The trace id of the first change that has one.
    trace_id: Option<String>,
}

impl<'s> Search<'s> {
    fn new(attributes: &'s Attributes) -> Self {
        let mut search = Self {
            attributes,
            scopes: Vec::new(),
            path: String::new(),
            values: 0,
            open: 0,
            strings: 0,
            room: MAX_UNPACKED_BYTES,
            room_for_events: MAX_UNPACKED_BYTES,
            size: Size::default(),
            found: Vec::new(),
            refused: None,
            lacking: None,
            without_effect: None,
            unknown: None,
            unknown_entry: None,
            notice: None,
            trace_id: None,
        };
        if let Some(text) = &attributes.kind {
            search.scopes.push(Scope {
                name: Some(Name {
                    text: text.clone(),
                    meaning: meaning(text),
                    field: "message attribute",
                }),
                ..Scope::default()
            });
        }
        search
    }

    fn visit(&mut self, raw: &str, key: Option<&str>, levels: usize) {
        self.values += 1;
        if self.values > MAX_VALUES || levels == 0 || self.refused.is_some() {
            return;
        }
        match raw.trim_start().as_bytes().first() {
            Some(b'{') => match Members::of(raw, MAX_OPEN_VALUES - self.open) {
                Some(members) => {
                    self.open += members.0.len();
                    self.object(&members, key, levels);
                    self.open -= members.0.len();
                }
                None => self.values = MAX_VALUES + 1,
            },
            Some(b'[') => match Entries::of(raw, MAX_OPEN_VALUES - self.open) {
                Some(Entries(entries)) => {
                    self.open += entries.len();
                    self.list(&entries, key, levels);
                    self.open -= entries.len();
                }
                None => self.values = MAX_VALUES + 1,
            },
            Some(b'"') if self.strings < MAX_STRINGS => {
                let text = serde_json::from_str::<String>(raw).ok();
                if let Some(json) = text.and_then(|text| text::unpack(&text, self.room)) {
                    self.room = self.room.saturating_sub(json.len());
                    let is_json = serde_json::from_str::<&RawValue>(&json).is_ok();
                    if !is_json && is_pointer_in_text(&json) {
                        self.refuse(Kind::Other, Invalid::new(BODY_IN_S3));
                    }
                    self.strings += 1;
                    // The object around it did not see a header in a string.
                    let key = key.filter(|key| !tells_of_beside(key));
                    self.visit(json.trim(), key, levels);
                    self.strings -= 1;
                }
            }
            _ => {}
        }
    }

    fn list(&mut self, entries: &[&RawValue], key: Option<&str>, levels: usize) {
        // A list is one of events if at least one of its entries is a known event. Types in other lists, for example of
        // actors or links, are not kinds.
        let mut is_of_events = false;
        let mut unknown_entry: Option<Name> = None;
        for (index, entry) in entries.iter().enumerate() {
            let found = self.found.len();
            let (unknown, without_effect) = (self.unknown.take(), self.without_effect.take());
            self.within(&format!("[{index}]"), |search| {
                search.visit(entry.get(), key, levels - 1);
            });
            let has_change = self.found.len() > found;
            is_of_events |= has_change || self.without_effect.is_some();
            if !has_change && unknown_entry.is_none() {
                unknown_entry.clone_from(&self.unknown);
            }
            self.unknown = unknown.or(self.unknown.take());
            self.without_effect = without_effect.or(self.without_effect.take());
        }
        if is_of_events && self.unknown_entry.is_none() {
            self.unknown_entry = unknown_entry;
        }
    }

    fn within(&mut self, step: &str, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push_str(step);
        visit(self);
        self.path.truncate(length);
    }

    fn object(&mut self, members: &Members<'_>, key: Option<&str>, levels: usize) {
        if is_pointer_to_s3(members) {
            self.refuse(Kind::Other, Invalid::new(BODY_IN_S3));
            return;
        }
        if let Some(notice) = notice_in(members) {
            self.notice = Some(notice);
            return;
        }
        let is_purge = self.named() == Some(Kind::Purge);
        let type_name = members.get("__typename").and_then(string);
        if !is_purge && type_name.is_some_and(|name| is_on_offer(&name)) {
            return;
        }
        if let Some(text) = text::opened(members, self.room)
            && self.strings < MAX_STRINGS
        {
            self.room = self.room.saturating_sub(text.len());
            self.strings += 1;
            self.visit(&text, key, levels);
            self.strings -= 1;
            return;
        }
        let merged = with_usage(members);
        let event = merged.as_ref().unwrap_or(members);
        let mut scope = Scope::of(event, key);
        if self.is_without_effect() {
            let has_effect = |name: &Name| matches!(name.meaning, Meaning::Effect(_));
            scope.name = scope
                .name
                .filter(|it| !has_effect(it) || it.is_beyond_doubt());
        }
        let is_header = key.is_some_and(tells_of_beside);
        let own = scope.name.clone();
        if let Some(name) = &own {
            match name.meaning {
                // State in such an event is not applied.
                Meaning::NoEffect(_) => {
                    self.without_effect.get_or_insert(name.clone());
                    return;
                }
                Meaning::Unknown if !is_header => {
                    self.unknown.get_or_insert(name.clone());
                }
                Meaning::Unknown | Meaning::Effect(_) => {}
            }
        }
        let before = self.found.len();
        self.scopes.push(scope);
        if !self.take(event) {
            for (name, raw) in &members.0 {
                if self.is_beside_the_point(name) {
                    continue;
                }
                // Lists that belong to an event are not events.
                let step = match spelled(name) {
                    Some(known) => format!(".{known}"),
                    None => ".*".to_owned(),
                };
                self.within(&step, |search| {
                    search.visit(raw.get(), Some(name), levels - 1);
                });
            }
        }
        self.scopes.pop();
        if let Some(Meaning::Effect(kind)) = own.map(|name| name.meaning)
            && self.found.len() == before
            && !is_header
        {
            self.lacking.get_or_insert(kind);
        }
    }

    fn refuse(&mut self, kind: Kind, reason: Invalid) {
        if kind == Kind::Other && self.is_without_effect() {
            return;
        }
        self.refused.get_or_insert((kind, reason));
    }
}
