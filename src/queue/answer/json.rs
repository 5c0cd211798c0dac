//! Reads JSON that holds long strings with many escapes, as messages inside an answer are: 64 bytes
//! at a time. What is not asked for is left to serde_json to skip.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use entitlement_core::plain;

/// What is read, and how far it has been.
#[derive(Debug)]
pub struct Json<'a> {
    text: &'a [u8],
    at: usize,
    /// The string that is being read, and room for more.
    scratch: Vec<u8>,
    /// How much of it there is.
    length: usize,
}

/// It is no JSON, or not what was expected, at this byte. Quotes nothing: a body is not logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unexpected at byte {0}")]
pub struct Unexpected(pub usize);

/// So many bytes are looked at together.
const BLOCK: usize = 64;
/// And so many copied: few texts between two quotes are longer.
const RUN: usize = 16;

impl<'a> Json<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            scratch: vec![0; text.len().min(8 << 10)],
            length: 0,
        }
    }

    /// An object. `field` reads the value of each, by its name, or [skips](Self::skip) it.
    pub fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, &str) -> Result<(), Unexpected>,
    ) -> Result<(), Unexpected> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.name()?;
            self.expect(b':')?;
            field(self, &name)?;
            if !self.take(b',') {
                return self.expect(b'}');
            }
        }
    }

    /// An array. `item` reads each.
    pub fn array(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), Unexpected>,
    ) -> Result<(), Unexpected> {
        self.expect(b'[')?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            item(self)?;
            if !self.take(b',') {
                return self.expect(b']');
            }
        }
    }

    /// What `value` reads, unless it is `null`.
    pub fn present<T>(
        &mut self,
        value: impl FnOnce(&mut Self) -> Result<T, Unexpected>,
    ) -> Result<Option<T>, Unexpected> {
        if self.peek() == Some(b'n') {
            self.skip()?;
            return Ok(None);
        }
        value(self).map(Some)
    }

    pub fn string(&mut self) -> Result<String, Unexpected> {
        self.expect(b'"')?;
        self.unescape()?;
        let text = self.scratch.get(..self.length).unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| Unexpected(self.at))?;
        Ok(text.to_owned())
    }

    /// Any value.
    pub fn skip(&mut self) -> Result<(), Unexpected> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
        let skipped = values.next();
        let end = self.at + values.byte_offset();
        match skipped {
            Some(Ok(_)) => {
                self.at = end;
                Ok(())
            }
            Some(Err(_)) | None => Err(Unexpected(end)),
        }
    }

    /// Nothing but blanks is left.
    pub fn end(&mut self) -> Result<(), Unexpected> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(Unexpected(self.at)),
        }
    }

    fn name(&mut self) -> Result<Cow<'a, str>, Unexpected> {
        self.expect(b'"')?;
        let rest = self.text.get(self.at..).unwrap_or_default();
        let end = rest
            .iter()
            .position(|byte| matches!(byte, b'"' | b'\\' | ..b' '));
        if let Some(end) = end.filter(|&end| rest[end] == b'"')
            && let Ok(name) = std::str::from_utf8(&rest[..end])
        {
            self.at += end + 1;
            return Ok(Cow::Borrowed(name));
        }
        self.at -= 1;
        self.string().map(Cow::Owned)
    }

    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == Some(byte);
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, byte: u8) -> Result<(), Unexpected> {
        match self.take(byte) {
            true => Ok(()),
            false => Err(Unexpected(self.at)),
        }
    }

    /// From behind the opening quote to behind the closing one, into `scratch`.
    fn unescape(&mut self) -> Result<(), Unexpected> {
        self.length = 0;
        loop {
            self.blocks();
            let special = self.next()?;
            match special {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                b' '.. => self.push(&[special]),
                _ => return Err(Unexpected(self.at - 1)),
            }
        }
    }

    /// Copies what stands for itself and escaped quotes, as far as whole blocks go.
    fn blocks(&mut self) {
        let mut is_plain = true;
        while is_plain
            && let Some(block) = self.text.get(self.at..)
            && let Some(block) = block.first_chunk::<{ BLOCK + RUN }>()
        {
            let end = self.length + BLOCK + RUN;
            if self.scratch.len() < end {
                self.scratch.resize(2 * end, 0);
            }
            let place = &mut self.scratch[self.length..end];
            let mut special = plain::mask(block);
            let (mut from, mut to) = (0, 0);
            loop {
                let next = special.trailing_zeros() as usize;
                let (mut run, mut behind) = (from, to);
                // More is copied than runs to the next special byte: what is behind it is written over.
                loop {
                    place[behind..behind + RUN].copy_from_slice(&block[run..run + RUN]);
                    run += RUN;
                    behind += RUN;
                    if run >= next {
                        break;
                    }
                }
                to += next - from;
                from = next;
                if from == BLOCK {
                    break;
                }
                is_plain = block[from..from + 2] == *b"\\\"";
                if !is_plain {
                    break;
                }
                place[to] = b'"';
                to += 1;
                from += 2;
                if from >= BLOCK {
                    break;
                }
                special &= u64::MAX << from;
            }
            self.at += from;
            self.length += to;
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if self.scratch.len() < end {
            self.scratch.resize(2 * end + 64, 0);
        }
        self.scratch[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }

    fn next(&mut self) -> Result<u8, Unexpected> {
        let byte = self.text.get(self.at).ok_or(Unexpected(self.at))?;
        self.at += 1;
        Ok(*byte)
    }

    fn escape(&mut self) -> Result<(), Unexpected> {
        let plain = match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => byte,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 0x08,
            b'f' => 0x0c,
            b'u' => return self.unicode(),
            _ => return Err(Unexpected(self.at - 1)),
        };
        self.push(&[plain]);
        Ok(())
    }

    /// Four digits, and four more where they are half of a pair.
    fn unicode(&mut self) -> Result<(), Unexpected> {
        let from = self.at;
        let unit = self.unit()?;
        let mut units = [unit, 0];
        let mut count = 1;
        if (0xd800..0xdc00).contains(&unit) {
            if (self.next()?, self.next()?) != (b'\\', b'u') {
                return Err(Unexpected(from));
            }
            units[1] = self.unit()?;
            count = 2;
        }
        for letter in char::decode_utf16(units.into_iter().take(count)) {
            let letter = letter.map_err(|_| Unexpected(from))?;
            let mut bytes = [0; 4];
            let bytes = letter.encode_utf8(&mut bytes).as_bytes();
            self.push(bytes);
        }
        Ok(())
    }

    fn unit(&mut self) -> Result<u16, Unexpected> {
        let mut unit = 0;
        for _ in 0..4 {
            let digit = char::from(self.next()?).to_digit(16);
            let digit = digit.ok_or(Unexpected(self.at - 1))?;
            unit = unit << 4 | digit as u16;
        }
        Ok(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any value, by our reading of objects, arrays and strings.
    fn ours(json: &mut Json<'_>) -> Result<serde_json::Value, Unexpected> {
        use serde_json::Value;
        match json.peek() {
            Some(b'{') => {
                let mut object = serde_json::Map::new();
                json.object(|json, name| {
                    let value = ours(json)?;
                    object.insert(name.to_owned(), value);
                    Ok(())
                })?;
                Ok(Value::Object(object))
            }
            Some(b'[') => {
                let mut array = Vec::new();
                json.array(|json| {
                    array.push(ours(json)?);
                    Ok(())
                })?;
                Ok(Value::Array(array))
            }
            Some(b'"') => json.string().map(Value::String),
            _ => {
                let from = json.at;
                json.skip()?;
                let skipped = &json.text[from..json.at];
                Ok(serde_json::from_slice(skipped).unwrap())
            }
        }
    }

    fn whole(text: &[u8]) -> Result<serde_json::Value, Unexpected> {
        let mut json = Json::new(text);
        let value = ours(&mut json)?;
        json.end()?;
        Ok(value)
    }

    fn agree(text: &[u8]) {
        let theirs = serde_json::from_slice(text).ok();
        let text = String::from_utf8_lossy(text);
        assert_eq!(whole(text.as_bytes()).ok(), theirs, "{text}");
    }

    #[test]
    fn reads_what_serde_json_reads_and_refuses_what_it_refuses() {
        let sample = r#" {"a\"b": ["x\\y\/\n\r\t\b\f", "é\u00e9\ud83d\ude00 and a longer tail",
            {"":null,"n":-1.5e3}, true, "", [], {} ] , "Body":"{\"type\":\"T\",\"n\":{\"k\":[1,2]}}"}
        "#;
        assert!(whole(sample.as_bytes()).is_ok());
        agree(sample.as_bytes());
        for end in 0..sample.len() {
            if sample.is_char_boundary(end) {
                agree(&sample.as_bytes()[..end]);
            }
        }
        for at in 0..sample.len() {
            for byte in *b"\"\\,:{}[]nu0 x\n\x01\x1f" {
                let mut text = sample.as_bytes().to_vec();
                text[at] = byte;
                if std::str::from_utf8(&text).is_ok() {
                    agree(&text);
                }
            }
        }
    }

    #[test]
    fn strings_of_any_letters_come_back_as_they_were() {
        let letters = [
            "a",
            "\"",
            "\\",
            "\n",
            "\u{1}",
            "é",
            "😀",
            "/",
            "longer than one run",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let length = random.usize(..200);
            let text: String = (0..length).filter_map(|_| random.choice(letters)).collect();
            let mut written = serde_json::to_string(&text).unwrap();
            // Blocks go to the end of what is behind the string.
            written.extend(std::iter::repeat_n(' ', random.usize(..100)));
            assert_eq!(Json::new(written.as_bytes()).string(), Ok(text));
            let mut broken = written.into_bytes();
            let at = random.usize(..broken.len());
            broken[at] = random.choice(*b"\"\\u\n\x1fx").unwrap();
            if std::str::from_utf8(&broken).is_ok() {
                agree(&broken);
            }
        }
    }

    #[test]
    fn pairs_are_put_together_and_halves_refused() {
        for text in [
            r#""\ud83d\ude00""#,
            r#""\ud83d""#,
            r#""\ude00""#,
            r#""\ud83dx\ude00""#,
            r#""\ud83d\u0041""#,
            r#""\u00G0""#,
            r#""\u+123""#,
        ] {
            agree(text.as_bytes());
        }
    }

    #[test]
    fn what_is_no_utf8_is_refused() {
        assert!(whole(b"\"\xff\"").is_err());
        assert!(whole(b"{\"\xff\":1}").is_err());
    }
}
