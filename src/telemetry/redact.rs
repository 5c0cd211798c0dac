//! Removes secrets from log lines and reports, also from those of libraries.

use std::borrow::Cow;

use anyhow::Context;
use regex::Regex;
use secrecy::{ExposeSecret, SecretString};

/// Replaces configured secrets, and texts that look like secrets.
#[derive(Debug)]
pub struct Redactor {
    patterns: Vec<(Regex, &'static str)>,
}

impl Redactor {
    pub fn new(secrets: &[SecretString]) -> anyhow::Result<Self> {
        let mut spellings: Vec<String> = Vec::new();
        for secret in secrets.iter().map(ExposeSecret::expose_secret) {
            // Too short to distinguish from ordinary text.
            if secret.len() < 4 {
                continue;
            }
            let json = serde_json::to_string(secret)?;
            spellings.push(regex::escape(json.trim_matches('"')));
            spellings.push(
                regex::escape(&format!("{secret:?}"))
                    .trim_matches('"')
                    .to_owned(),
            );
            spellings.push(regex::escape(secret));
        }
        // Longest first, because one may be a part of another.
        spellings.sort_by_key(|spelling| std::cmp::Reverse(spelling.len()));
        spellings.dedup();
        let mut patterns = vec![
            (
                r"(?i)\bbearer\s+[A-Za-z0-9._~+/=-]+".to_owned(),
                "[REDACTED]",
            ),
            (r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}".to_owned(), "[REDACTED]"),
            (r"://[^/\s:@]*:[^/\s@]+@".to_owned(), "://[REDACTED]@"),
            (
                r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?".to_owned(),
                "[REDACTED]",
            ),
        ];
        if !spellings.is_empty() {
            patterns.insert(0, (spellings.join("|"), "[REDACTED]"));
        }
        let compile = |(pattern, with): (String, _)| {
            let regex = Regex::new(&pattern).context("cannot prepare redaction")?;
            anyhow::Ok((regex, with))
        };
        Ok(Self {
            patterns: patterns
                .into_iter()
                .map(compile)
                .collect::<Result<_, _>>()?,
        })
    }

    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut redacted = Cow::Borrowed(text);
        for (pattern, with) in &self.patterns {
            if let Cow::Owned(changed) = pattern.replace_all(&redacted, *with) {
                redacted = Cow::Owned(changed);
            }
        }
        redacted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_what_looks_like_one_are_replaced() {
        let secrets = ["hunter2-canary".into(), "quo\"te\\d".into(), "abc".into()];
        let redactor = Redactor::new(&secrets).unwrap();
        for (text, redacted) in [
            (
                "password hunter2-canary, again hunter2-canary",
                "password [REDACTED], again [REDACTED]",
            ),
            (r#"{"a":"quo\"te\\d"}"#, r#"{"a":"[REDACTED]"}"#),
            (
                "Authorization: Bearer abc.def-1",
                "Authorization: [REDACTED]",
            ),
            ("key AKIAIOSFODNN7EXAMPLE!", "key [REDACTED]!"),
            ("redis://user:pass@host:1/0", "redis://[REDACTED]@host:1/0"),
            ("redis://:pass@host", "redis://[REDACTED]@host"),
            (
                "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2ln",
                "[REDACTED]",
            ),
            (
                "abc is too short, and http://host:80/a@b is no login",
                "abc is too short, and http://host:80/a@b is no login",
            ),
        ] {
            assert_eq!(redactor.redact(text), redacted);
        }
    }
}
