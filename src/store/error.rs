//! What Redis may answer instead, and whether waiting helps.

use fred::error::{Error, ErrorKind};

/// Why a write failed, or may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct StoreError {
    heals: bool,
    detail: String,
}

/// Codes that speak of the key or the command, and will speak so for ever.
const FINAL: [&str; 3] = ["WRONGTYPE", "CROSSSLOT", "ERR"];
/// Codes that speak of the server, looked for inside a text as well.
const PASSING: [&str; 9] = [
    "READONLY",
    "OOM",
    "LOADING",
    "MISCONF",
    "MASTERDOWN",
    "NOREPLICAS",
    "NOAUTH",
    "NOPERM",
    "CLUSTERDOWN",
];
/// How Redis 7 says NOPERM from inside a script.
const NOPERM_IN_SCRIPT: &str = "The user executing the script";

impl StoreError {
    /// Time or an operator's hand on Redis mends it: the message waits. Otherwise it is the message
    /// that cannot be applied.
    pub fn heals(&self) -> bool {
        self.heals
    }

    /// Waiting alone will not mend it: someone has to set a password or a permission right.
    pub fn needs_a_person(&self) -> bool {
        let code = self.detail.split([' ', ':']).next().unwrap_or_default();
        ["NOPERM", "WRONGPASS", "NOAUTH", "Authentication"].contains(&code)
    }

    /// What Redis said, as text that begins with a code. What does not is an error of our script on
    /// this one message.
    pub fn of_redis(text: &str) -> Self {
        if text.contains(NOPERM_IN_SCRIPT) {
            let text = text.trim_start_matches("ERR ");
            return Self::healing(format!("NOPERM {}", first_sentence(text)));
        }
        // Before Redis 7 an error that a script met came as "-OOM …", or behind the script's line.
        let text = text.trim_start_matches('-');
        let text = match PASSING
            .iter()
            .find_map(|code| text.find(&format!("-{code} ")))
        {
            Some(at) => &text[at + 1..],
            None => text,
        };
        let code = text.split(' ').next().unwrap_or_default();
        let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase());
        Self {
            heals: is_code && !FINAL.contains(&code),
            // The code and the sentence are Redis's own; what follows may name keys.
            detail: first_sentence(text),
        }
    }

    pub fn timeout() -> Self {
        Self::healing("Redis does not answer in time".into())
    }

    /// An answer that our script cannot give.
    pub fn protocol() -> Self {
        Self::healing("Redis gave an answer that cannot be".into())
    }

    fn healing(detail: String) -> Self {
        Self {
            heals: true,
            detail,
        }
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::Unknown | ErrorKind::InvalidCommand | ErrorKind::InvalidArgument => {
                Self::of_redis(error.details())
            }
            ErrorKind::Timeout => Self::timeout(),
            ErrorKind::IO => {
                Self::healing(format!("not reachable: {}", io_message(error.details())))
            }
            kind => Self::healing(format!(
                "{}: {}",
                kind.to_str(),
                first_sentence(error.details())
            )),
        }
    }
}

/// The words in `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
fn io_message(text: &str) -> String {
    let words = text.split_once("message: \"");
    let words = words.and_then(|(_, rest)| rest.split_once('"'));
    words.map_or_else(|| first_sentence(text), |(words, _)| first_sentence(words))
}

fn first_sentence(text: &str) -> String {
    let end = text.find(". script:").or_else(|| text.find(" script: "));
    let text = text[..end.unwrap_or(text.len())]
        .lines()
        .next()
        .unwrap_or_default();
    text.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_heal_are_told_from_those_that_do_not() {
        for (text, heals) in [
            (
                "READONLY You can't write against a read only replica.",
                true,
            ),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                true,
            ),
            ("LOADING Redis is loading the dataset in memory", true),
            ("MISCONF Errors writing to the AOF file", true),
            (
                "NOPERM this user has no permissions to run the 'set' command",
                true,
            ),
            ("WRONGPASS invalid username-password pair", true),
            ("NOAUTH Authentication required.", true),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                false,
            ),
            ("ERR unknown command", false),
            (
                "ERR The user executing the script can't run this command or subcommand",
                true,
            ),
            ("@user_script: 12: too many results to unpack", false),
            (
                "-READONLY You can't write against a read only replica.",
                true,
            ),
            (
                "@user_script: 47: -OOM command not allowed when used memory > 'maxmemory'.",
                true,
            ),
            ("-WRONGTYPE Operation against a key", false),
        ] {
            assert_eq!(StoreError::of_redis(text).heals(), heals, "{text}");
        }
    }
}
