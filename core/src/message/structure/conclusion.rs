//! Concludes the search: what the message asks for, or why it is invalid.

use super::carried::lacking;
use super::scope::Name;
use super::{MAX_VALUES, Search};
use crate::message::Invalid;
use crate::message::kind::{Kind, Meaning};
use crate::message::known::Missed;
use crate::message::read::{NamedBy, Reading, Unreadable};

impl Search<'_> {
    pub(super) fn finish(mut self, first: Missed) -> Result<Reading<'static>, Unreadable> {
        self.apply_attribute();
        if let Some(unreadable) = self.unreadable(&first) {
            return Err(unreadable);
        }
        let has_change = !self.found.is_empty();
        let unrecognised = match has_change {
            true => self.unknown_entry,
            false => self.unknown.filter(|_| self.notice.is_none()),
        };
        let (kind, (named_by, name)) = match self.found.first() {
            Some((kind, Some(name), _)) if name.meaning == Meaning::Effect(*kind) => {
                (*kind, named(name))
            }
            Some((kind, name, _)) => {
                let text = name.as_ref().map(|it| it.text.clone());
                (*kind, (NamedBy::Structure, text.unwrap_or_default()))
            }
            None if self.notice.is_some() => (Kind::Other, (NamedBy::Structure, String::new())),
            None => match (&unrecognised, &self.without_effect) {
                (Some(name), _) => (Kind::Other, named(name)),
                (None, Some(name)) => match name.meaning {
                    Meaning::NoEffect(kind) => (kind, named(name)),
                    _ => (Kind::Other, named(name)),
                },
                (None, None) => {
                    return Err(Unreadable {
                        kind: first.kind.unwrap_or(Kind::Other),
                        reason: first.reason,
                    });
                }
            },
        };
        Ok(Reading {
            kind,
            name,
            named_by,
            wrappings: Vec::new(),
            trace_id: self.trace_id,
            unrecognised: unrecognised.map(|name| name.text),
            notice: self.notice.filter(|_| !has_change),
            changes: self
                .found
                .into_iter()
                .map(|(_, _, change)| change)
                .collect(),
        })
    }

    /// Returns the name in the message attribute, the outermost scope. It is the kind of all that has no name of its
    /// own.
    fn by_attribute(&self) -> Option<&Name> {
        self.attributes.kind.as_ref()?;
        self.scopes.first()?.name.as_ref()
    }

    /// Returns whether the message attribute names a kind without effect. Then the only changes to apply are those
    /// whose kind the body names, under a field that holds only kinds.
    pub(super) fn is_without_effect(&self) -> bool {
        let name = self.by_attribute();
        name.is_some_and(|name| matches!(name.meaning, Meaning::NoEffect(_)))
    }

    /// Uses the name in the message attribute for a message in which no change was found.
    fn apply_attribute(&mut self) {
        let Some(name) = self.by_attribute().cloned() else {
            return;
        };
        if !self.found.is_empty() {
            return;
        }
        match name.meaning {
            Meaning::Effect(kind) => {
                self.lacking.get_or_insert(kind);
            }
            // A known name takes precedence over an unknown one, wherever it is.
            Meaning::NoEffect(_) => {
                self.unknown = None;
                self.without_effect.get_or_insert(name);
            }
            Meaning::Unknown => {
                if self.without_effect.is_none() && !name.text.is_empty() {
                    self.unknown.get_or_insert(name);
                }
            }
        }
    }

    fn unreadable(&mut self, first: &Missed) -> Option<Unreadable> {
        let (kind, reason) = if let Some(refused) = self.refused.take() {
            refused
        } else if let Some(kind) = self.lacking {
            let reason = match first.kind {
                Some(named) if named == kind => first.reason.clone(),
                _ => lacking(kind),
            };
            (kind, reason)
        } else if self.values > MAX_VALUES && !self.is_without_effect() {
            let reason = format!(
                "no known shape, and more than {MAX_VALUES} values would have to be searched for a change; split the message"
            );
            (first.kind.unwrap_or(Kind::Other), Invalid::new(reason))
        } else {
            return None;
        };
        Some(Unreadable { kind, reason })
    }
}

/// Returns what named a kind, and the name.
fn named(name: &Name) -> (NamedBy, String) {
    let by = match name.field {
        "message attribute" => NamedBy::Attribute,
        "key" => NamedBy::Key,
        field => NamedBy::Field(field),
    };
    (by, name.text.clone())
}
