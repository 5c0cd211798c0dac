//! From a body to the event inside it: SNS, EventBridge, `data`, `payload`, GraphQL; and its kind.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::kind::Kind;
use super::time::Time;
use super::wire::{Event, Inside, Text};
use super::{Invalid, Millis};

/// What SQS tells beside the body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The message attribute `type`, or else `eventType`.
    pub kind: Option<String>,
    /// The system attribute `SentTimestamp`.
    pub sent: Option<Millis>,
}

/// What said of which kind a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// A field of the body.
    Field(&'static str),
    /// The message attribute `type` or `eventType`.
    Attribute,
    /// The one field under `data`.
    GraphQl,
}

/// A wrapping that was taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    Sns,
    Detail,
    Payload,
    Data,
    /// `data`, and the one field in it.
    GraphQl,
}

impl Wrapping {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sns => "SNS notification",
            Self::Detail => "EventBridge event",
            Self::Payload => "payload",
            Self::Data => "data",
            Self::GraphQl => "GraphQL data",
        }
    }
}

/// A body without its wrapping.
#[derive(Debug)]
pub struct Opened<'a> {
    pub kind: Kind,
    /// The kind as the message spells it.
    pub name: String,
    pub named_by: NamedBy,
    /// What was taken off, from the outside in.
    pub wrappings: Vec<Wrapping>,
    /// The trace id of the event, if it has one.
    pub trace_id: Option<String>,
    /// The event itself, a JSON object, or what has it as its `payload`.
    text: Cow<'a, str>,
    is_payload: bool,
    /// The event's own `timestamp`; `Err` where it is no time.
    pub(super) timestamp: Option<Result<Millis, Invalid>>,
    /// The event, where looking for the wrapping has parsed it by the way.
    pub(super) parsed: RefCell<Option<Parsed<'a>>>,
}

/// An event that was parsed by the way: with what is under its `payload`, or as such.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    Outer(Box<Event<'a, Inside<'a>>>),
    Inner(Box<Event<'a>>),
}

impl<'a> Parsed<'a> {
    fn take_payload(&mut self) -> Option<Box<Event<'a>>> {
        match self {
            Self::Outer(event) => match event.payload.take()? {
                Inside::Event(payload) => Some(payload),
                Inside::NoObject => None,
            },
            Self::Inner(_) => None,
        }
    }
}

impl Opened<'_> {
    /// The event itself, a JSON object.
    pub(super) fn text(&self) -> &str {
        #[derive(Deserialize)]
        struct Outer<'a> {
            #[serde(borrow)]
            payload: &'a RawValue,
        }
        match self.is_payload {
            // It was read before, so it can be read again.
            true => serde_json::from_str::<Outer<'_>>(&self.text)
                .map_or(&*self.text, |outer| outer.payload.get()),
            false => &self.text,
        }
    }
}

/// No sender wraps deeper; what does is taken as it stands.
const DEEPEST: usize = 6;

#[derive(Deserialize)]
struct Layer<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "eventType")]
    event_type: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "eventName")]
    event_name: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "detail-type")]
    detail_type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    detail: Option<&'a RawValue>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "Type")]
    sns_type: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "Message")]
    sns_message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "traceId")]
    trace_id: Option<&'a RawValue>,
}

impl<'a> Layer<'a> {
    fn of<P>(event: &Event<'a, P>, payload: Option<&'a RawValue>) -> Self {
        Self {
            kind: event.kind,
            event_type: event.event_type,
            event_name: event.event_name,
            detail_type: event.detail_type,
            detail: event.detail,
            data: event.data,
            payload,
            sns_type: event.sns_type,
            sns_message: event.sns_message,
            timestamp: event.timestamp,
            trace_id: event.trace_id,
        }
    }

    /// Most texts are events of the right types all through, and are parsed but once.
    fn read(text: &'a str) -> Result<(Self, Option<Parsed<'a>>), serde_json::Error> {
        if text.trim_start().starts_with('{')
            && let Ok(event) = serde_json::from_str::<Box<Event<'a, Inside<'a>>>>(text)
        {
            return Ok((Self::of(&event, None), Some(Parsed::Outer(event))));
        }
        Ok((serde_json::from_str(text)?, None))
    }
}

/// Opens a body. An error means that it is no event at all.
pub fn open<'a>(body: &'a str, attributes: &Attributes) -> Result<Opened<'a>, Invalid> {
    let mut names: [Option<String>; 4] = Default::default();
    let mut graphql = None;
    let mut wrappings = Vec::new();
    let mut timestamp = None;
    let mut trace_id = None;
    let mut text = Cow::Borrowed(body);
    let mut parsed = None;
    // The payload of `text`, read with it and not yet looked at.
    let mut inner_event: Option<Box<Event<'a>>> = None;
    let mut is_payload = false;
    for _ in 0..DEEPEST {
        // serde would take the members of an array for those of a struct, in their order.
        if text.trim_ascii_start().starts_with('[') {
            return Err(Invalid::new("no event: not a JSON object"));
        }
        is_payload = inner_event.is_some();
        let layer: Layer<'_>;
        (layer, parsed) = match (inner_event.take(), &text) {
            (Some(event), _) => {
                let layer = Layer::of(&event, event.payload);
                Ok((layer, Some(Parsed::Inner(event))))
            }
            (None, Cow::Borrowed(text)) => Layer::read(text),
            (None, Cow::Owned(text)) => serde_json::from_str(text).map(|layer| (layer, None)),
        }
        .map_err(|error| not_an_event(&error))?;
        let spelt = [
            layer.kind,
            layer.event_type,
            layer.event_name,
            layer.detail_type,
        ];
        for (name, spelt) in names.iter_mut().zip(spelt) {
            if name.is_none() {
                *name = spelt.and_then(string).map(Cow::into_owned);
            }
        }
        if let Some(raw) = layer.timestamp.filter(|raw| raw.get() != "null") {
            timestamp = Some(Time::from_raw(raw).map_or_else(
                || {
                    Err(Invalid::new(
                        "timestamp is no time: write ISO 8601 or epoch milliseconds",
                    ))
                },
                |time| time.required("timestamp"),
            ));
        }
        trace_id = layer
            .trace_id
            .and_then(string)
            .map(Cow::into_owned)
            .or(trace_id);

        let is_sns = layer
            .sns_type
            .and_then(string)
            .is_some_and(|kind| kind == "Notification");
        let inner: Option<Cow<'_, str>> = if is_sns {
            wrappings.push(Wrapping::Sns);
            let message = layer.sns_message.and_then(string);
            Some(message.ok_or_else(|| Invalid::new("SNS notification without a string Message"))?)
        } else if let Some(detail) = layer.detail_type.and(layer.detail).filter(is_object) {
            wrappings.push(Wrapping::Detail);
            Some(detail.get().into())
        } else if let Some(event) = parsed.as_mut().and_then(Parsed::take_payload) {
            wrappings.push(Wrapping::Payload);
            inner_event = Some(event);
            continue;
        } else if let Some(payload) = layer.payload.filter(is_object) {
            wrappings.push(Wrapping::Payload);
            Some(payload.get().into())
        } else if let Some(data) = layer.data.filter(is_object) {
            let named = names.iter().any(Option::is_some) || attributes.kind.is_some();
            match only_field(data) {
                Some((name, event)) if !named || Kind::named(&name) != Kind::Other => {
                    graphql = Some(name.into_owned());
                    wrappings.push(Wrapping::GraphQl);
                    Some(event.get().into())
                }
                _ => {
                    wrappings.push(Wrapping::Data);
                    Some(data.get().into())
                }
            }
        } else {
            None
        };
        // What is borrowed from an owned text cannot outlive it, so it is copied; this happens
        // inside SNS only.
        text = match (inner, &text) {
            (None, _) => break,
            (Some(inner), Cow::Borrowed(outer)) => reborrow(inner, outer),
            (Some(inner), Cow::Owned(_)) => Cow::Owned(inner.into_owned()),
        };
        // It is the wrapping's, and at the deepest level the text within is not looked into.
        parsed = None;
        is_payload = false;
    }
    if let Some(event) = inner_event {
        parsed = Some(Parsed::Inner(event));
        is_payload = true;
    }
    const FIELDS: [&str; 4] = ["type", "eventType", "eventName", "detail-type"];
    let by_field = std::iter::zip(FIELDS, names)
        .find_map(|(field, name)| Some((NamedBy::Field(field), name?)));
    let by_attribute = || Some((NamedBy::Attribute, attributes.kind.clone()?));
    let (named_by, name) = by_field
        .or_else(by_attribute)
        .or_else(|| Some((NamedBy::GraphQl, graphql?)))
        .ok_or_else(|| {
            Invalid::new(
                "no kind: expected type, eventType, eventName, detail-type or one field under data",
            )
        })?;
    Ok(Opened {
        kind: Kind::named(&name),
        name,
        named_by,
        wrappings,
        trace_id,
        text,
        is_payload,
        timestamp,
        parsed: RefCell::new(parsed),
    })
}

/// `inner` is a slice of `outer` or a copy; this gives a slice the lifetime of the whole.
fn reborrow<'a>(inner: Cow<'_, str>, outer: &'a str) -> Cow<'a, str> {
    match inner {
        Cow::Owned(inner) => Cow::Owned(inner),
        Cow::Borrowed(inner) => {
            let offset = (inner.as_ptr() as usize).wrapping_sub(outer.as_ptr() as usize);
            match outer.get(offset..offset.saturating_add(inner.len())) {
                Some(slice) => Cow::Borrowed(slice),
                None => Cow::Owned(inner.to_owned()),
            }
        }
    }
}

fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|Text(text)| text)
}

fn is_object(raw: &&RawValue) -> bool {
    raw.get().starts_with('{')
}

/// The one field of an object, if it is one and itself an object.
fn only_field(raw: &RawValue) -> Option<(Cow<'_, str>, &RawValue)> {
    #[derive(Deserialize)]
    struct Fields<'a>(#[serde(borrow)] HashMap<Cow<'a, str>, &'a RawValue>);
    let Fields(fields) = serde_json::from_str(raw.get()).ok()?;
    let mut fields = fields.into_iter();
    let only = fields.next().filter(|(_, value)| is_object(value))?;
    fields.next().is_none().then_some(only)
}

fn not_an_event(error: &serde_json::Error) -> Invalid {
    use serde_json::error::Category;
    let place = format!("at line {} column {}", error.line(), error.column());
    Invalid::new(match error.classify() {
        Category::Syntax => format!("no JSON: syntax error {place}"),
        Category::Eof => format!("no JSON: it ends early {place}"),
        Category::Data | Category::Io => {
            format!("no event: not a JSON object, or a field twice, {place}")
        }
    })
}
