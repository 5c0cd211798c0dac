//! Reads the public shapes in the known wrappings: the first pass.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::change::{self, Times};
use super::fields::{explain, is_object, name_of_attributes, only_field, read_time, string};
use super::kind::{Kind, Meaning, meaning};
use super::read::{Attributes, NamedBy, Notice, Reading, Wrapping};
use super::wire::{Event, Nested, Object};
use super::{Change, Invalid};

/// Why the first pass did not understand a body.
#[derive(Debug)]
pub(super) struct Missed {
    /// The kind that the body names, if it has an effect.
    pub kind: Option<Kind>,
    pub reason: Invalid,
}

impl From<Invalid> for Missed {
    fn from(reason: Invalid) -> Self {
        Self { kind: None, reason }
    }
}

/// Maximum nested wrappings that this pass removes.
const MAX_WRAPPINGS: usize = 6;

/// Names of kinds, in order of precedence.
const FIELDS: [&str; 4] = ["type", "eventType", "eventName", "detail-type"];

/// The data around an event.
struct Context<'c> {
    attributes: &'c Attributes,
    /// For each field, the outermost name of a known kind, or else the outermost name.
    names: [Option<(String, Meaning)>; 4],
    /// The name in the message attributes that SNS moved into the body.
    sns_name: Option<String>,
    graphql: Option<String>,
    wrappings: Vec<Wrapping>,
    trace_id: Option<String>,
    times: Times,
}

pub(super) fn read<'a>(body: &'a str, attributes: &Attributes) -> Result<Reading<'a>, Missed> {
    let mut context = Context {
        attributes,
        names: Default::default(),
        sns_name: None,
        graphql: None,
        wrappings: Vec::new(),
        trace_id: None,
        times: Times {
            sent: attributes.sent,
            ..Times::default()
        },
    };
    read_text(body, &mut context)
}

fn read_text<'a>(text: &'a str, context: &mut Context<'_>) -> Result<Reading<'a>, Missed> {
    let event: Result<Object<Box<Event<'a, Nested<'a>>>>, _> = serde_json::from_str(text);
    match event {
        Ok(Object(event)) => unwrap(event, context),
        Err(error) => Err(missed(text, &error, context)),
    }
}

/// The parsed wrapper of a payload.
trait Payload<'a> {
    fn event(self) -> Option<Box<Event<'a>>>;
}

impl<'a> Payload<'a> for Nested<'a> {
    fn event(self) -> Option<Box<Event<'a>>> {
        match self {
            Self::Event(event) => Some(event),
            Self::Other => None,
        }
    }
}

impl<'a> Payload<'a> for &'a RawValue {
    fn event(self) -> Option<Box<Event<'a>>> {
        let event: Result<Object<Box<Event<'a>>>, _> = serde_json::from_str(self.get());
        event.ok().map(|Object(event)| event)
    }
}

/// Removes the wrappings one by one, and reads the event.
fn unwrap<'a, P: Payload<'a>>(
    mut event: Box<Event<'a, P>>,
    context: &mut Context<'_>,
) -> Result<Reading<'a>, Missed> {
    let names = [
        event.kind,
        event.event_type,
        event.event_name,
        event.detail_type,
    ];
    context.learn(names, &event)?;
    if context.wrappings.len() == MAX_WRAPPINGS {
        return context.finish(event);
    }
    match event.sns_type.and_then(string).as_deref() {
        Some("Notification") => {
            context.wrappings.push(Wrapping::Sns);
            let message = event
                .sns_message
                .and_then(string)
                .ok_or_else(|| Invalid::new("SNS notification without a string Message"))?;
            context.sns_name = event.sns_attributes.and_then(name_of_attributes);
            drop(event);
            // The result borrows from the message, which ends here.
            return read_text(&message, context).map(Reading::into_owned);
        }
        Some("SubscriptionConfirmation") => {
            return Ok(context.notice(Notice::SubscriptionConfirmation));
        }
        Some("UnsubscribeConfirmation") => {
            return Ok(context.notice(Notice::UnsubscribeConfirmation));
        }
        _ => {}
    }
    if let Some(detail) = event.detail_type.and(event.detail).filter(is_object) {
        context.wrappings.push(Wrapping::Detail);
        drop(event);
        return read_text(detail.get(), context);
    }
    if let Some(payload) = event.payload.take().and_then(P::event) {
        context.wrappings.push(Wrapping::Payload);
        drop(event);
        return unwrap(payload, context);
    }
    if let Some(data) = event.data.filter(is_object) {
        drop(event);
        let is_named = context.names.iter().any(Option::is_some)
            || context.sns_name.is_some()
            || context.attributes.kind.is_some();
        match only_field(data) {
            Some((name, inner)) if !is_named || meaning(&name) != Meaning::Unknown => {
                context.graphql = Some(name.into_owned());
                context.wrappings.push(Wrapping::GraphQl);
                return read_text(inner.get(), context);
            }
            _ => {
                context.wrappings.push(Wrapping::Data);
                return read_text(data.get(), context);
            }
        }
    }
    context.finish(event)
}

impl Context<'_> {
    fn learn<P>(
        &mut self,
        names: [Option<&RawValue>; 4],
        event: &Event<'_, P>,
    ) -> Result<(), Missed> {
        for (known, name) in self.names.iter_mut().zip(names) {
            if known.as_ref().is_none_or(|(_, it)| *it == Meaning::Unknown)
                && let Some(name) = name.and_then(string)
            {
                let meaning = meaning(&name);
                if known.is_none() || meaning != Meaning::Unknown {
                    *known = Some((name.into_owned(), meaning));
                }
            }
        }
        if let Some(raw) = event.timestamp.filter(|raw| raw.get() != "null") {
            match read_time(raw) {
                // An unknown time does not replace a known one around it.
                Some(0) if self.times.timestamp.is_some() => {}
                Some(time) => self.times.timestamp = Some(Ok(time)),
                None => {
                    self.times.timestamp = Some(Err(Invalid::new(
                        "timestamp is not a valid time; use ISO 8601 or epoch milliseconds",
                    )));
                }
            }
        }
        let is_envelope = event.detail_type.is_some() || event.specversion.is_some();
        let envelopes = [
            event.time.filter(|_| is_envelope),
            event.sns_timestamp.filter(|_| event.sns_type.is_some()),
        ];
        for raw in envelopes.into_iter().flatten() {
            if let Some(time) = read_time(raw).filter(|&time| time != 0) {
                self.times.envelope = Some(time);
            }
        }
        if let Some(trace_id) = event.trace_id.and_then(string) {
            self.trace_id = Some(trace_id.into_owned());
        }
        Ok(())
    }

    /// Returns the name of the kind: the first that is a known kind, or else the first.
    fn named(&self) -> Option<(NamedBy, &str, Meaning)> {
        let by_field = std::iter::zip(FIELDS, &self.names).filter_map(|(field, name)| {
            let (name, meaning) = name.as_ref()?;
            Some((NamedBy::Field(field), name.as_str(), *meaning))
        });
        fn of(by: NamedBy, name: &Option<String>) -> Option<(NamedBy, &str, Meaning)> {
            let name = name.as_deref()?;
            Some((by, name, meaning(name)))
        }
        let attribute_in_body = of(NamedBy::Attribute, &self.sns_name);
        let attribute = of(NamedBy::Attribute, &self.attributes.kind);
        let graphql = of(NamedBy::GraphQl, &self.graphql);
        let others = [attribute_in_body, attribute, graphql];
        let mut all = by_field.chain(others.into_iter().flatten());
        let first = all.next()?;
        match first.2 {
            Meaning::Unknown => all
                .find(|(_, _, meaning)| *meaning != Meaning::Unknown)
                .or(Some(first)),
            _ => Some(first),
        }
    }

    #[expect(clippy::boxed_local, reason = "it is large, and comes in a box")]
    fn finish<'a, P>(&mut self, event: Box<Event<'a, P>>) -> Result<Reading<'a>, Missed> {
        let Some((named_by, name, meaning)) = self.named() else {
            return Err(Missed::from(Invalid::new(
                "no kind: expected type, eventType, eventName, detail-type or one field under data",
            )));
        };
        let name = name.to_owned();
        match meaning {
            Meaning::Effect(kind) => {
                let change = change::of(kind, *event, &self.times);
                let change = change.map_err(|reason| Missed {
                    kind: Some(kind),
                    reason,
                })?;
                Ok(self.reading(kind, named_by, name, vec![change]))
            }
            // The search finds out whether the body names another kind in another place.
            Meaning::NoEffect(_) if self.is_named_by_queue(named_by, &name) => {
                Err(Missed::from(Invalid::new("the kind has no effect")))
            }
            Meaning::NoEffect(kind) => Ok(self.reading(kind, named_by, name, Vec::new())),
            Meaning::Unknown => Err(Missed::from(Invalid::new("the kind is unknown"))),
        }
    }

    /// Returns whether the message attribute of SQS has this name, and nothing in the body.
    fn is_named_by_queue(&self, named_by: NamedBy, name: &str) -> bool {
        named_by == NamedBy::Attribute
            && self.sns_name.is_none()
            && self.attributes.kind.as_deref() == Some(name)
    }

    fn notice<'a>(&mut self, notice: Notice) -> Reading<'a> {
        Reading {
            notice: Some(notice),
            ..self.reading(Kind::Other, NamedBy::Structure, String::new(), Vec::new())
        }
    }

    fn reading<'a>(
        &mut self,
        kind: Kind,
        named_by: NamedBy,
        name: String,
        changes: Vec<Change<'a>>,
    ) -> Reading<'a> {
        Reading {
            kind,
            name,
            named_by,
            wrappings: std::mem::take(&mut self.wrappings),
            trace_id: self.trace_id.take(),
            changes,
            notice: None,
            unrecognised: None,
        }
    }
}

impl Reading<'_> {
    pub(super) fn into_owned(self) -> Reading<'static> {
        Reading {
            kind: self.kind,
            name: self.name,
            named_by: self.named_by,
            wrappings: self.wrappings,
            trace_id: self.trace_id,
            changes: self.changes.into_iter().map(Change::into_owned).collect(),
            notice: self.notice,
            unrecognised: self.unrecognised,
        }
    }
}

/// Handles a text that is not a readable event. Its names may still show that it has no effect, so
/// that its contents need not be checked.
fn missed<'a>(text: &'a str, error: &serde_json::Error, context: &mut Context<'_>) -> Missed {
    /// Reads only the names: other errors do not matter.
    #[derive(Deserialize)]
    struct Names<'a> {
        #[serde(borrow, default, rename = "type")]
        kind: Option<&'a RawValue>,
        #[serde(borrow, default, rename = "eventType")]
        event_type: Option<&'a RawValue>,
        #[serde(borrow, default, rename = "eventName")]
        event_name: Option<&'a RawValue>,
        #[serde(borrow, default, rename = "detail-type")]
        detail_type: Option<&'a RawValue>,
    }
    if let Ok(Object(names)) = serde_json::from_str::<Object<Names<'a>>>(text) {
        let names = [
            names.kind,
            names.event_type,
            names.event_name,
            names.detail_type,
        ];
        for (known, name) in context.names.iter_mut().zip(names) {
            if known.is_none()
                && let Some(name) = name.and_then(string)
            {
                let meaning = meaning(&name);
                *known = Some((name.into_owned(), meaning));
            }
        }
    }
    let kind = context.named().and_then(|(_, _, meaning)| match meaning {
        Meaning::Effect(kind) => Some(kind),
        _ => None,
    });
    Missed {
        kind,
        reason: explain(text, error),
    }
}
