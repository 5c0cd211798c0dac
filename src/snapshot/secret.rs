//! The secret that files are encrypted with: a key of 32 bytes, or a passphrase.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::GeneralPurposeConfig;
use base64::engine::{DecodePaddingMode, GeneralPurpose};
use secrecy::{SecretSlice, SecretString};

pub const KEY_BYTES: usize = 32;
const MIN_PASSPHRASE_CHARS: usize = 16;
/// A passphrase with fewer different characters is a placeholder.
const MIN_DIFFERENT_CHARS: usize = 6;

/// A secret as `SNAPSHOT_KEY` gives it. Its debug output does not show it.
#[derive(Debug, Clone)]
pub struct Secret(pub(super) Kind);

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Key(SecretSlice<u8>),
    Passphrase(SecretString),
}

impl Secret {
    /// Reads 32 bytes as hex or base64, else a passphrase. The error says what to write, without the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(key) = key(text) {
            if key.iter().all(|byte| *byte == key[0]) {
                return Err(
                    "repeats one byte: write random bytes, as `openssl rand -base64 32` prints them"
                        .into(),
                );
            }
            return Ok(Self(Kind::Key(key.into())));
        }
        if text.chars().count() < MIN_PASSPHRASE_CHARS {
            return Err(
                "is too short: write 32 bytes as hex or base64, as `openssl rand -base64 32` prints \
                 them, or a passphrase of 16 characters or more"
                    .into(),
            );
        }
        let mut different: Vec<char> = text.chars().collect();
        different.sort_unstable();
        different.dedup();
        if different.len() < MIN_DIFFERENT_CHARS {
            return Err(
                "repeats a few characters: write a passphrase that is hard to guess, or 32 bytes as \
                 `openssl rand -base64 32` prints them"
                    .into(),
            );
        }
        Ok(Self(Kind::Passphrase(text.into())))
    }
}

/// Returns the 32 bytes that a text stands for.
fn key(text: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = match text.len() {
        64 => return hex(text),
        43 | 44 => [STANDARD, URL_SAFE]
            .iter()
            .find_map(|alphabet| GeneralPurpose::new(alphabet, config).decode(text).ok())?,
        _ => return None,
    };
    (decoded.len() == KEY_BYTES).then_some(decoded)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks_exact(2);
    pairs
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn key_of(text: &str) -> Option<Vec<u8>> {
        match Secret::parse(text).unwrap().0 {
            Kind::Key(key) => Some(key.expose_secret().to_vec()),
            Kind::Passphrase(_) => None,
        }
    }

    #[test]
    fn a_key_is_read_in_each_notation() {
        let key: Vec<u8> = (0..32).map(|it| it * 7).collect();
        let hex: String = key.iter().map(|byte| format!("{byte:02X}")).collect();
        let standard = base64::engine::general_purpose::STANDARD.encode(&key);
        let url_safe = base64::engine::general_purpose::URL_SAFE.encode(&key);
        let bare = standard.trim_end_matches('=');
        for text in [
            &hex,
            &hex.to_lowercase(),
            &standard,
            &url_safe,
            bare,
            &format!(" {standard}\n"),
        ] {
            assert_eq!(key_of(text), Some(key.clone()), "{text}");
        }
    }

    #[test]
    fn another_text_is_a_passphrase_if_it_is_long_enough() {
        assert_eq!(key_of("correct horse battery"), None);
        assert_eq!(key_of("ünïcödé wörds äre fïne"), None);
        for weak in [
            "",
            "tiny",
            "fifteen chars!!",
            "aaaaaaaaaaaaaaaaaaaaaaaa",
            "abababababababababab",
            &"0".repeat(64),
        ] {
            let error = Secret::parse(weak).unwrap_err();
            assert!(error.contains("openssl rand -base64 32"), "{error}");
            assert!(weak.is_empty() || !error.contains(weak), "{error}");
        }
        let shown = format!("{:?}", Secret::parse("correct horse battery").unwrap());
        assert!(!shown.contains("horse"), "{shown}");
    }
}
