//! Prints the shape of a body without its values.

use serde_json::value::RawValue;

use super::kind::words;
use super::structure::{Entries, MAX_OPEN_VALUES, Members};

/// Maximum characters of a skeleton.
const MAX_LENGTH: usize = 2_000;
const MAX_LEVELS: usize = 10;
/// Maximum members shown of an object.
const MAX_MEMBERS: usize = 40;

/// Words that occur in names of fields. A name with another word may be an id, so it is
/// shown as `?`.
const NAME_WORDS: &str = " access account action active addon amount anchor applied approximate attribute attributes \
    aws balance batch billing body bucket bus category charge client code config configuration content context \
    correlation count created credit credits currency current customer customers data date delivery denied \
    detail display effective encoding end entitlement entitlements entity entry enum environment envelope event \
    events expires external feature features fluctuating from granted group has header headers hidden id ids info \
    is item items key kind last level limit list max message messages meta metadata meter method min money \
    monthly name new next notification number object occurred offset old order origin package page parent partition \
    payload period plan plans plural price previous priority product promotional properties published queue rate \
    reason received record records ref reference region request requested reset resource resources result revision \
    rule s3 schema sdk seat sender sent sequence service session singular size snapshot sns soft source spec \
    specversion start state status stigg string subject subscription subscriptions summary tenant test time \
    timestamp timezone to token topic total trace trial type typename unit units unlimited unsubscribe until \
    updated url usage user uuid v1 v2 v3 valid value values version weekly yearly according consumed amounts on at by \
    of the in arn ";

/// Returns the names and JSON types of a body: enough for a maintainer to understand a new shape, without any
/// customer data.
pub fn skeleton(body: &str) -> String {
    let mut out = String::new();
    match serde_json::from_str::<&RawValue>(body.trim_start_matches('\u{feff}')) {
        Ok(value) => write(value, MAX_LEVELS, &mut out),
        Err(_) => out.push_str("not JSON"),
    }
    if out.len() > MAX_LENGTH {
        let end = (0..=MAX_LENGTH).rev().find(|&it| out.is_char_boundary(it));
        out.truncate(end.unwrap_or(0));
        out.push('…');
    }
    out
}

fn write(value: &RawValue, levels: usize, out: &mut String) {
    if out.len() > MAX_LENGTH {
        return;
    }
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'n') => out.push_str("null"),
        Some(b't' | b'f') => out.push_str("boolean"),
        Some(b'"') => {
            let inner = serde_json::from_str::<String>(text).unwrap_or_default();
            match serde_json::from_str::<&RawValue>(&inner) {
                Ok(inner) if levels > 0 && inner.get().starts_with(['{', '[']) => {
                    out.push_str("string of ");
                    write(inner, levels - 1, out);
                }
                _ => out.push_str("string"),
            }
        }
        Some(b'[' | b'{') if levels == 0 => out.push('…'),
        Some(b'[') => list(text, levels, out),
        Some(b'{') => object(text, levels, out),
        _ => out.push_str("number"),
    }
}

fn list(text: &str, levels: usize, out: &mut String) {
    let Some(Entries(entries)) = Entries::of(text, MAX_OPEN_VALUES) else {
        return out.push_str("[…]");
    };
    // Entries are mostly alike, so each shape is shown once.
    let mut shapes: Vec<String> = Vec::new();
    for entry in entries.into_iter().take(MAX_MEMBERS) {
        let mut shape = String::new();
        write(entry, levels - 1, &mut shape);
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    out.push('[');
    out.push_str(&shapes.join(","));
    out.push(']');
}

fn object(text: &str, levels: usize, out: &mut String) {
    let Some(Members(members)) = Members::of(text, MAX_OPEN_VALUES) else {
        return out.push_str("{…}");
    };
    let mut shown: Vec<String> = Vec::new();
    for (name, value) in members.iter().take(MAX_MEMBERS) {
        let mut member = format!("{}:", field_name(name));
        write(value, levels - 1, &mut member);
        if !shown.contains(&member) {
            shown.push(member);
        }
    }
    if members.len() > MAX_MEMBERS {
        shown.push("…".into());
    }
    out.push('{');
    out.push_str(&shown.join(","));
    out.push('}');
}

/// Returns the name if all its words occur in names of fields, else `?`.
fn field_name(name: &str) -> &str {
    let is_plain = name.len() <= 60
        && name
            .bytes()
            .all(|it| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-' | b'$' | b'.'));
    let words = words(name);
    let all_known = words
        .iter()
        .all(|word| NAME_WORDS.contains(&format!(" {word} ")));
    match is_plain && !words.is_empty() && all_known {
        true => name,
        false => "?",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_types_are_shown_and_nothing_else() {
        let body = r#"{"type":"x.y","eventId":7,"data":{"customer_id":"CANARY","list":[{"id":"CANARY"},{"id":"b"},null],
            "CANARY":{"id":true},"acme-canary-7":1,"inner":"{\"customerId\":\"CANARY\"}"}}"#;
        let shown = skeleton(body);
        assert!(
            !shown.contains("CANARY") && !shown.contains("canary"),
            "{shown}"
        );
        for part in [
            "type:string",
            "eventId:number",
            "customer_id:string",
            "list:[{id:string},null]",
            "?:{id:boolean}",
            "string of {customerId:string}",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
    }

    #[test]
    fn what_is_not_json_and_what_is_large_is_said_in_few_words() {
        assert_eq!(skeleton("CANARY"), "not JSON");
        let wide = format!(
            "[{}1]",
            r#"{"id":1,"data":[{"id":[1,{"name":2}]}]},"#.repeat(20_000)
        );
        assert!(skeleton(&wide).len() < 200);
        let members: Vec<String> = (0..500).map(|it| format!(r#""name{it}":1"#)).collect();
        assert!(skeleton(&format!("{{{}}}", members.join(","))).len() <= MAX_LENGTH + 3);
    }
}
