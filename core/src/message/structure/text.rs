//! Repairs texts that senders mangled: unpacks and normalizes them to JSON that serde accepts.

use std::borrow::Cow;
use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::GeneralPurposeConfig;
use base64::engine::{DecodePaddingMode, GeneralPurpose};
use serde_json::value::RawValue;

use super::values::{Entries, MAX_OPEN_VALUES, Members};
use super::vocabulary::spelled;

/// Maximum bytes that are unpacked from one message.
pub const MAX_UNPACKED_BYTES: usize = 8 << 20;

/// Removes a byte order mark and replaces lone surrogates by U+FFFD, as decoders of UTF-16 do.
pub fn clean(text: &str) -> Cow<'_, str> {
    let text = text.trim_start_matches('\u{feff}');
    match text.contains("\\u") {
        true => replace_lone_surrogates(text),
        false => Cow::Borrowed(text),
    }
}

fn replace_lone_surrogates(text: &str) -> Cow<'_, str> {
    const REPLACEMENT: &str = "\\ufffd";
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(escape, 16).ok()
    };
    let (mut clean, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(found) = text[at..].find('\\') {
        at += found;
        match unit(at) {
            Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => {
                clean.push_str(&text[copied..at]);
                clean.push_str(REPLACEMENT);
                at += 6;
                copied = at;
            }
            // Another escape: what follows the backslash is not one that begins here.
            _ => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    match copied {
        0 => Cow::Borrowed(text),
        _ => {
            clean.push_str(&text[copied..]);
            Cow::Owned(clean)
        }
    }
}

/// Returns the JSON in a string: plain, in base64, or in base64 of gzip or zlib. `room` is the number of bytes that
/// may be unpacked.
pub fn unpack(text: &str, room: usize) -> Option<String> {
    let looks_like_json = |text: &str| {
        let text = text.trim_start_matches('\u{feff}').trim_start();
        text.starts_with(['{', '[', '"'])
    };
    if looks_like_json(text) {
        return (text.len() <= room).then(|| joined(clean(text)).into_owned());
    }
    let bytes = decode(text)?;
    let unpacked = match bytes.as_slice() {
        [0x1f, 0x8b, ..] => inflate(flate2::read::MultiGzDecoder::new(bytes.as_slice()), room)?,
        [0x78, ..] => inflate(flate2::read::ZlibDecoder::new(bytes.as_slice()), room)?,
        _ if bytes.len() <= room => bytes,
        _ => return None,
    };
    let text = String::from_utf8(unpacked).ok()?;
    looks_like_json(&text).then(|| joined(clean(&text)).into_owned())
}

/// Converts several JSON objects one after the other, for example one per line, to a list. Any other
/// text is unchanged.
pub fn joined(text: Cow<'_, str>) -> Cow<'_, str> {
    if serde_json::from_str::<&RawValue>(&text).is_ok() {
        return text;
    }
    let values = serde_json::Deserializer::from_str(&text).into_iter::<&RawValue>();
    let values = values.take(MAX_OPEN_VALUES + 1);
    let values: Result<Vec<&str>, _> = values.map(|value| value.map(RawValue::get)).collect();
    match values {
        Ok(values)
            if (2..=MAX_OPEN_VALUES).contains(&values.len())
                && values.iter().all(|value| value.starts_with('{')) =>
        {
            Cow::Owned(format!("[{}]", values.join(",")))
        }
        _ => text,
    }
}

/// Returns the object with the JSON strings in it parsed; `None` if there are none.
pub fn opened(members: &Members<'_>, room: usize) -> Option<String> {
    const PARTS: [&str; 10] = [
        "customer",
        "customers",
        "customerIds",
        "resource",
        "feature",
        "currency",
        "entitlements",
        "entitlementsV2",
        "entitlementReference",
        "usage",
    ];
    let open = |(name, raw): &(Cow<'_, str>, &RawValue)| {
        let is_part = spelled(name).is_some_and(|name| PARTS.contains(&name));
        if !is_part || !raw.get().starts_with('"') {
            return None;
        }
        let json = unpack(&serde_json::from_str::<String>(raw.get()).ok()?, room)?;
        let is_part = json.trim_start().starts_with(['{', '[']);
        (is_part && serde_json::from_str::<&RawValue>(&json).is_ok()).then_some(json)
    };
    let parts: Vec<Option<String>> = members.0.iter().map(open).collect();
    if parts.iter().all(Option::is_none) {
        return None;
    }
    let mut text = String::from("{");
    for (index, ((name, raw), part)) in members.0.iter().zip(parts).enumerate() {
        if index > 0 {
            text.push(',');
        }
        push_string(name, &mut text);
        text.push(':');
        text.push_str(part.as_deref().unwrap_or(raw.get()));
    }
    text.push('}');
    Some(text)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    /// Minimum length; every event is longer.
    const SHORTEST: usize = 24;
    let packed: Vec<u8> = text
        .bytes()
        .filter(|it| !it.is_ascii_whitespace())
        .collect();
    let is_base64 = |it: &u8| it.is_ascii_alphanumeric() || b"+/-_=".contains(it);
    if packed.len() < SHORTEST || !packed.iter().all(is_base64) {
        return None;
    }
    let alphabet = match packed.iter().any(|it| b"-_".contains(it)) {
        true => &base64::alphabet::URL_SAFE,
        false => &base64::alphabet::STANDARD,
    };
    GeneralPurpose::new(alphabet, LENIENT).decode(packed).ok()
}

fn inflate(reader: impl Read, room: usize) -> Option<Vec<u8>> {
    let mut unpacked = Vec::new();
    let most = u64::try_from(room).ok()?.saturating_add(1);
    reader.take(most).read_to_end(&mut unpacked).ok()?;
    (unpacked.len() <= room).then_some(unpacked)
}

/// Writes a value with each name once and, if requested, with the published spelling of
/// names. Values that are nested deeper than any event, or larger, are unchanged.
pub fn rewrite(raw: &str, respell: bool, out: &mut String) {
    write(raw.trim(), respell, 16, MAX_OPEN_VALUES, out);
}

fn write(raw: &str, respell: bool, levels: usize, most: usize, out: &mut String) {
    match raw.as_bytes().first() {
        Some(b'{') if levels > 0 => {
            let Some(Members(mut members)) = Members::of(raw, most) else {
                return out.push_str(raw);
            };
            if respell {
                for (name, _) in &mut members {
                    if let Some(known) = spelled(name) {
                        *name = Cow::Borrowed(known);
                    }
                }
                // If a name occurs in two spellings, the last counts, as for one spelling.
                let mut seen = std::collections::HashSet::new();
                members.reverse();
                members.retain(|(name, _)| seen.insert(name.clone()));
                members.reverse();
            }
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_string(name, out);
                out.push(':');
                write(value.get(), respell, levels - 1, most - members.len(), out);
            }
            out.push('}');
        }
        Some(b'[') if levels > 0 => {
            let Some(Entries(entries)) = Entries::of(raw, most) else {
                return out.push_str(raw);
            };
            out.push('[');
            for (index, value) in entries.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(value.get(), respell, levels - 1, most - entries.len(), out);
            }
            out.push(']');
        }
        _ => out.push_str(raw),
    }
}

pub fn push_string(text: &str, out: &mut String) {
    // Writing a string as JSON cannot fail.
    out.push_str(&serde_json::to_string(text).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lone_surrogates_are_replaced_and_pairs_kept() {
        for (text, expected) in [
            (r#""a\ud800b""#, r#""a\ufffdb""#),
            (
                r#""\udc00\ud83d\ude00\ud83d""#,
                r#""\ufffd\ud83d\ude00\ufffd""#,
            ),
            (r#""\\ud800""#, r#""\\ud800""#),
            (r#""\\\ud800""#, r#""\\\ufffd""#),
            (r#""\u00e9""#, r#""\u00e9""#),
            ("\u{feff}{}", "{}"),
        ] {
            assert_eq!(clean(text), expected, "{text}");
        }
    }

    #[test]
    fn objects_one_after_the_other_are_a_list() {
        for (text, expected) in [
            ("{\"a\":1}\n{\"b\":2}\n", "[{\"a\":1},{\"b\":2}]"),
            ("{}{}", "[{},{}]"),
            ("{} 5", "{} 5"),
            ("{}\n{", "{}\n{"),
            ("{}", "{}"),
        ] {
            assert_eq!(joined(text.into()), expected, "{text}");
        }
    }

    #[test]
    fn of_a_repeated_name_the_last_counts() {
        let mut out = String::new();
        rewrite(
            r#"{"a":1,"b":{"c":1,"c":[{"d":1,"d":2}]},"a":"x"}"#,
            false,
            &mut out,
        );
        assert_eq!(out, r#"{"a":"x","b":{"c":[{"d":2}]}}"#);
    }

    #[test]
    fn names_are_respelled_as_published() {
        let mut out = String::new();
        rewrite(
            r#"{"customer_ref_id":"a","Entitlements":[{"usage_limit":1,"other_name":2}]}"#,
            true,
            &mut out,
        );
        assert_eq!(
            out,
            r#"{"customerId":"a","entitlements":[{"usageLimit":1,"other_name":2}]}"#
        );
    }

    #[test]
    fn what_is_unpacked_is_bounded() {
        use base64::engine::general_purpose::STANDARD;
        use std::io::Write;
        let pack = |text: &str| {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            gzip.write_all(text.as_bytes()).unwrap();
            STANDARD.encode(gzip.finish().unwrap())
        };
        let event = r#"{"type":"usageUpdated"}"#;
        assert_eq!(unpack(&pack(event), 100).as_deref(), Some(event));
        assert_eq!(unpack(&STANDARD.encode(event), 100).as_deref(), Some(event));
        assert_eq!(unpack(&pack(event), 10), None);
        let bomb = format!("[{}0]", "0,".repeat(MAX_UNPACKED_BYTES));
        assert_eq!(unpack(&pack(&bomb), MAX_UNPACKED_BYTES), None);
        for other in ["", "acme", "not json at all, with spaces", &"A".repeat(100)] {
            assert_eq!(unpack(other, 1000), None, "{other}");
        }
    }
}
