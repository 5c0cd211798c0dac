//! What of a JSON string stands for itself, eight bytes at a time.

/// How many of the first bytes are neither quotes nor backslashes nor control characters.
pub fn length(text: &[u8]) -> usize {
    let mut rest = text;
    while let Some((&word, after)) = rest.split_first_chunk::<8>() {
        let plain = of_word(u64::from_le_bytes(word));
        if plain < 8 {
            return text.len() - rest.len() + plain;
        }
        rest = after;
    }
    let special = |&byte: &u8| byte < b' ' || byte == b'"' || byte == b'\\';
    let plain = rest.iter().position(special).unwrap_or(rest.len());
    text.len() - rest.len() + plain
}

/// The same of eight bytes, the first one lowest.
fn of_word(word: u64) -> usize {
    (special(word).trailing_zeros() / 8) as usize
}

/// A bit for each of the first 64 bytes, set where it does not stand for itself.
#[inline]
pub fn mask<const N: usize>(text: &[u8; N]) -> u64 {
    let (words, _) = text.as_chunks::<8>();
    words.iter().take(8).rev().fold(0, |mask, &word| {
        let special = special(u64::from_le_bytes(word));
        // Puts the eight high bits side by side.
        mask << 8 | (special >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
    })
}

/// The high bit of each byte that does not stand for itself.
#[inline]
fn special(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let each = |byte: u8| u64::from_ne_bytes([byte; 8]);
    let low = word & LOW;
    // Sums of seven bits each, so that none carries into the next byte.
    let no_control = low + each(0x80 - b' ');
    let no_quote = (low ^ each(b'"')) + LOW;
    let no_backslash = (low ^ each(b'\\')) + LOW;
    !((no_control & no_quote & no_backslash) | word) & !LOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_in_each_place_is_told() {
        for length in 0..20 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = vec![b'a'; length];
                    text[at] = byte;
                    let special = matches!(byte, ..b' ' | b'"' | b'\\');
                    let expected = if special { at } else { length };
                    assert_eq!(super::length(&text), expected, "{byte} at {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn the_first_of_several_counts() {
        assert_eq!(length(b"abc\x1f\0\"\\ and more"), 3);
        assert_eq!(of_word(u64::from_le_bytes(*b"abcde\"\"\"")), 5);
        assert_eq!(of_word(u64::from_le_bytes([0xff; 8])), 8);
    }

    #[test]
    fn its_neighbours_hide_no_byte() {
        for byte in 0..=u8::MAX {
            for at in 0..8 {
                let mut word = *b"\x80 z!\xff#[]";
                word[at] = byte;
                let special = matches!(byte, b'"' | b'\\' | ..b' ');
                let expected = if special { at } else { 8 };
                assert_eq!(of_word(u64::from_le_bytes(word)), expected, "{word:?}");
            }
        }
    }

    #[test]
    fn a_mask_has_a_bit_for_each_special_byte() {
        let mut text = [0; 64];
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2_000 {
            text.fill_with(|| {
                random
                    .choice([
                        0, 0x1f, b' ', b'!', b'"', b'#', b'\\', 0x7f, 0x80, 0xa2, 0xdc, 0xff,
                    ])
                    .unwrap()
            });
            let expected = (0..64).filter(|&at| matches!(text[at], ..b' ' | b'"' | b'\\'));
            assert_eq!(
                mask(&text),
                expected.fold(0, |mask, at| mask | 1 << at),
                "{text:?}"
            );
        }
    }
}
