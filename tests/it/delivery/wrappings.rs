//! Every known event is found in whatever it is wrapped: objects, lists, strings, base64 and gzip within
//! each other, under any names, as deep as docs/compatibility.md says. It asks for the same change as
//! without its wrappings.
//!
//! `FUZZ_SEED` repeats a run, `FUZZ_ROUNDS` makes it longer.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use entitlement_sync::message::{self, Attributes, Reading, StateChange, Wrapping};
use fastrand::Rng;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use crate::delivery::fixtures::{self, Fixture};
use crate::delivery::fuzz::number;

/// Objects and lists that are searched, within each other.
const MAX_LEVELS: usize = 8;
/// Strings that are unpacked, within each other.
const MAX_STRINGS: usize = 8;

/// Names under which senders put events, names that stand for something else beside an event, and names
/// with letters of all sorts.
const NAMES: [&str; 32] = [
    "Records",
    "messages",
    "events",
    "body",
    "event",
    "message",
    "Message",
    "payload",
    "data",
    "detail",
    "value",
    "content",
    "envelope",
    "record",
    "notification",
    "params",
    "input",
    "result",
    "metadata",
    "headers",
    "attributes",
    "context",
    "kind",
    "name",
    "topic",
    "action",
    "source",
    "id",
    "",
    "ünïcödé",
    "with space",
    "a.b-c_d",
];

fn attributes(fixture: &Fixture) -> Attributes {
    let attributes = fixture.attributes();
    let kind = attributes.get("type").or(attributes.get("eventType"));
    Attributes {
        kind: kind.cloned(),
        sent: Some(1_764_000_000_000),
    }
}

fn changes<'r>(reading: &'r Reading<'_>) -> Vec<&'r StateChange<'r>> {
    reading.changes.iter().map(|change| &change.state).collect()
}

/// Objects and lists in which the innermost change of a body lies, and strings.
fn depth(reading: &Reading<'_>) -> (usize, usize) {
    let of_known = |wrapping: &Wrapping| match wrapping {
        Wrapping::Sns => (1, 1),
        Wrapping::GraphQl => (2, 0),
        Wrapping::Detail | Wrapping::Payload | Wrapping::Data => (1, 0),
    };
    let known = reading.wrappings.iter().map(of_known);
    let (levels, strings) = known.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    let paths = reading.changes.iter().filter_map(|it| it.path.as_ref());
    let deepest = paths.map(|path| path.matches(['.', '[']).count()).max();
    // A path does not tell strings, so as many as there may be are taken for granted.
    match deepest {
        Some(deepest) => (deepest, 4),
        None => (levels, strings),
    }
}

/// What stands beside an event and means nothing.
fn noise(random: &mut Rng) -> Value {
    match random.u8(..10) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(random.u32(..)),
        3 => json!("some text"),
        4 => json!([1, "two", null]),
        5 => json!({"source": "somewhere", "list": [{"a": 1}]}),
        6 => json!("bm90IGpzb24gYXQgYWxsLCBqdXN0IGEgdGV4dA=="),
        // Types of something else than an event, and of an event of an unknown kind.
        7 => json!({"type": "user", "id": "u"}),
        8 => json!({"type": "customer.merged", "links": [{"type": "invoice", "id": 1}]}),
        _ => json!(""),
    }
}

fn name(random: &mut Rng) -> String {
    match random.u8(..3) {
        0 => (0..random.usize(1..12))
            .map(|_| random.alphanumeric())
            .collect(),
        _ => NAMES[random.usize(..NAMES.len())].to_owned(),
    }
}

/// One wrapping around a JSON value, and whether it is a string.
pub fn wrap(random: &mut Rng, inner: String, is_string_allowed: bool) -> (String, bool) {
    let kind = match is_string_allowed {
        true => random.u8(..5),
        false => random.u8(..2),
    };
    let text = match kind {
        0 => {
            let at = random.usize(..3);
            let mut members: Vec<String> = (0..at)
                .map(|number| format!(r#""beside{number}":{}"#, noise(random)))
                .collect();
            let name = json!(name(random)).to_string();
            members.insert(random.usize(..=at), format!("{name}:{inner}"));
            return (format!("{{{}}}", members.join(",")), false);
        }
        1 => {
            let mut entries: Vec<String> = (0..random.usize(..3))
                .map(|_| noise(random).to_string())
                .collect();
            entries.insert(random.usize(..=entries.len()), inner);
            return (format!("[{}]", entries.join(",")), false);
        }
        2 => inner,
        3 => match random.bool() {
            true => STANDARD.encode(inner),
            false => URL_SAFE_NO_PAD.encode(inner),
        },
        _ if random.bool() => {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(inner.as_bytes()).unwrap();
            STANDARD.encode(gzip.finish().unwrap())
        }
        _ => {
            let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
            zlib.write_all(inner.as_bytes()).unwrap();
            STANDARD.encode(zlib.finish().unwrap())
        }
    };
    (json!(text).to_string(), true)
}

#[test]
fn a_known_event_is_found_in_any_wrapping() {
    let seed = number("FUZZ_SEED", 20_261_126);
    let rounds = number("FUZZ_ROUNDS", 30);
    let fixtures: Vec<Fixture> = fixtures::load()
        .into_iter()
        .filter(|fixture| fixture.text("outcome") == "applied")
        .collect();
    assert!(fixtures.len() > 100, "{}", fixtures.len());
    let mut wrong = Vec::new();
    for fixture in &fixtures {
        let (body, attributes) = (fixture.body(), attributes(fixture));
        let expected = message::read(&body, &attributes).unwrap();
        let (levels, strings) = depth(&expected);
        for round in 0..rounds {
            let mut random = Rng::with_seed(seed ^ (round << 32));
            // What is no JSON itself can only be text.
            let is_json = serde_json::from_str::<Value>(&body).is_ok();
            let mut wrapped = match is_json {
                true => body.clone(),
                false => json!(body).to_string(),
            };
            let (mut levels, mut strings) = (levels, strings + usize::from(!is_json));
            for _ in 0..random.usize(1..10) {
                let (text, is_string) = wrap(&mut random, wrapped, strings < MAX_STRINGS);
                wrapped = text;
                match is_string {
                    true => strings += 1,
                    false => levels += 1,
                }
                if levels == MAX_LEVELS || wrapped.len() > 200_000 {
                    break;
                }
            }
            let context = || {
                let shown: String = wrapped.chars().take(1_500).collect();
                format!("{}, seed {seed}, round {round}: {shown}", fixture.name)
            };
            let what = match message::read(&wrapped, &attributes) {
                Ok(found) if changes(&found) == changes(&expected) => continue,
                Ok(found) => format!("found {:?}", changes(&found)),
                Err(unreadable) => format!("refused: {}", unreadable.reason),
            };
            let expected = changes(&expected);
            let what = format!("{}\n{what}\nexpected {expected:?}", context());
            wrong.push((fixture.name.clone(), what));
        }
    }
    let total = wrong.len();
    // One of each fixture.
    wrong.dedup_by_key(|(name, _)| name.clone());
    let shown: Vec<&String> = wrong.iter().map(|(_, what)| what).collect();
    assert!(wrong.is_empty(), "{total} wrong, of which:\n{shown:#?}");
}
