//! Classifies errors of Redis: temporary or final, and whether the call is the cause.

use fred::error::{Error, ErrorKind};

use crate::foreign_text;

/// Why a write failed, or may have failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct StoreError {
    heals: bool,
    person: bool,
    of_call: bool,
    detail: String,
}

/// Codes that concern the key or the command, and do not change on a retry.
const FINAL_CODES: [&str; 3] = ["WRONGTYPE", "CROSSSLOT", "ERR"];
/// Codes that concern the server. They may also occur within a text.
const TEMPORARY_CODES: [&str; 9] = [
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
/// Codes that the call itself does not cause: the state or the configuration of the server.
const SERVER_CODES: [&str; 6] = [
    "WRONGPASS",
    "TRYAGAIN",
    "MOVED",
    "ASK",
    "CROSSSLOT",
    // Redis did not run the call: the script of another client keeps it busy.
    "BUSY",
];
/// The texts of Redis, and of Valkey since 8.
const UNKNOWN_COMMAND_TEXTS: [&str; 2] = [
    "unknown redis command",
    "unknown command called from script",
];
/// States of the server that have the code `ERR`.
const TEMPORARY_ERR_TEXTS: [&str; 3] = [
    "cluster is down",
    "on a stale replica",
    "max number of clients",
];
const UNKNOWN_COMMAND_ADVICE: &str = "Redis does not know a command that the worker's script calls: remove rename-command of GET, MGET, SET and DEL";
/// The texts of NOPERM from within a script, in Redis 7 and Valkey 9.
const NOPERM_IN_SCRIPT_TEXTS: [&str; 2] =
    ["The user executing the script", "ACL failure in script"];

impl StoreError {
    /// Whether the error may pass, by itself or once an operator fixes Redis: the message waits. Otherwise the
    /// message cannot be applied.
    pub fn heals(&self) -> bool {
        self.heals
    }

    /// Whether the call itself may be the cause: Redis took too long for it, closed the connection,
    /// or returned an error that does not concern the server. Sending the call alone shows it.
    pub fn may_be_of_the_call(&self) -> bool {
        self.of_call
    }

    /// Returns whether Redis runs the script of another client, which passes.
    pub fn is_busy(&self) -> bool {
        self.detail.starts_with("BUSY ")
    }

    /// Returns whether Redis rejected the database number, by the texts of servers and proxies.
    pub fn is_of_database(&self) -> bool {
        const SIGNS: [&str; 3] = ["DB index", "invalid DB", "SELECT is not allowed"];
        let reply = self.detail.strip_prefix("ERR ");
        reply.is_some_and(|reply| SIGNS.iter().any(|sign| reply.contains(sign)))
    }

    /// Returns whether an operator must act: set a password, grant a permission or change a setting.
    pub fn needs_a_person(&self) -> bool {
        const SIGNS: [&str; 7] = [
            "NOPERM",
            "WRONGPASS",
            "NOAUTH",
            "DENIED",
            "TLS:",
            "ERR invalid password",
            "ERR unknown command",
        ];
        let is_said = SIGNS.iter().any(|sign| self.detail.starts_with(sign));
        self.person || is_said || self.is_of_database()
    }

    /// Converts a reply of Redis, a text that starts with a code. A text without a code is an error of the script on
    /// this one message.
    pub fn of_redis(text: &str) -> Self {
        if NOPERM_IN_SCRIPT_TEXTS
            .iter()
            .any(|sign| text.contains(sign))
        {
            let text = text.trim_start_matches("ERR ");
            return Self::healing(format!("NOPERM {}", own_words(text)));
        }
        // A command that the script calls is renamed or disabled.
        let lower = text.to_ascii_lowercase();
        if UNKNOWN_COMMAND_TEXTS
            .iter()
            .any(|sign| lower.contains(sign))
        {
            return Self::lost(UNKNOWN_COMMAND_ADVICE.to_owned(), true);
        }
        // Before Redis 7 an error within a script is "-OOM …", or follows the line of the script.
        let text = text.trim_start_matches('-');
        let text = match TEMPORARY_CODES
            .iter()
            .find_map(|code| text.find(&format!("-{code} ")))
        {
            Some(at) => &text[at + 1..],
            None => text,
        };
        let code = text.split(' ').next().unwrap_or_default();
        let is_code = !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase());
        let is_passing = TEMPORARY_ERR_TEXTS.iter().any(|sign| text.contains(sign));
        Self {
            heals: is_passing || (is_code && !FINAL_CODES.contains(&code)),
            person: false,
            of_call: !is_passing
                && !TEMPORARY_CODES.contains(&code)
                && !SERVER_CODES.contains(&code),
            detail: own_words(text),
        }
    }

    /// Returns the error of a Redis without scripts: this user lacks the permission, or the server or proxy lacks EVAL.
    pub fn without_scripts(by_permission: bool) -> Self {
        let detail = match by_permission {
            true => {
                "NOPERM this Redis user may not run scripts; the worker needs EVAL to compare and write in one step: grant +eval and +evalsha"
            }
            false => {
                "Redis, or a proxy in front of it, does not have EVAL; the worker needs it to compare and write in one step: remove rename-command EVAL, or connect to a Redis with scripts (docs/redis.md)"
            }
        };
        Self::lost(detail.to_owned(), true)
    }

    pub fn timeout() -> Self {
        Self::healing("Redis does not answer in time".into()).of_the_call()
    }

    /// Returns the error of a reply that the script cannot give.
    pub fn protocol() -> Self {
        Self::healing("unexpected reply from Redis".into()).of_the_call()
    }

    /// Returns the error while the worker still looks up the primary.
    pub fn looking() -> Self {
        Self::healing("the worker is looking up the Redis primary".into())
    }

    /// Returns the error of a failed lookup of the primary.
    pub fn lost(detail: String, needs_a_person: bool) -> Self {
        Self {
            person: needs_a_person,
            ..Self::healing(detail)
        }
    }

    /// Returns the error of a connection that cannot be configured.
    pub fn setup(error: &anyhow::Error) -> Self {
        Self::lost(format!("{error:#}"), true)
    }

    /// Returns the error of a write that replicas did not confirm.
    pub fn unconfirmed(why: &str) -> Self {
        Self::healing(format!("the write is not confirmed: {why}"))
    }

    /// Returns the error of a process without a journal, which has no place to keep a message.
    pub fn without_journal() -> Self {
        Self {
            heals: false,
            ..Self::healing(
                "there is no place to keep it: set SNAPSHOT_PATH, or a redrive policy".into(),
            )
        }
    }

    /// Returns the error of a customer that is too large for an entry of the journal.
    pub fn too_large() -> Self {
        Self {
            heals: false,
            ..Self::healing("the customer is too large for the journal".into())
        }
    }

    /// Returns the error of a journal that cannot be written.
    pub fn of_journal(error: &std::io::Error) -> Self {
        Self::healing(format!(
            "cannot write the journal in SNAPSHOT_PATH: {error}"
        ))
    }

    fn healing(detail: String) -> Self {
        Self {
            heals: true,
            person: false,
            of_call: false,
            detail,
        }
    }

    fn of_the_call(self) -> Self {
        Self {
            of_call: true,
            ..self
        }
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let details = error.details();
        match error.kind() {
            ErrorKind::Timeout => Self::timeout(),
            ErrorKind::IO | ErrorKind::Tls if tls_message(details).is_some() => {
                Self::healing(tls_message(details).unwrap_or_default())
            }
            // The reply to a client of a single cluster node, and to the worker while a slot moves.
            ErrorKind::Cluster if details.starts_with("MOVED") => Self::healing(
                "MOVED: the keys are on another node of a cluster: set REDIS_MODE=cluster".into(),
            ),
            ErrorKind::IO => {
                let detail = format!("not reachable: {}", io_message(details));
                Self::healing(detail).of_the_call()
            }
            ErrorKind::Auth
                if !details.starts_with("WRONGPASS") && !details.starts_with("NOAUTH") =>
            {
                // A text of this service: a file is unreadable, or a token cannot be made.
                Self::lost(first_sentence(details), true)
            }
            ErrorKind::Unknown
            | ErrorKind::InvalidCommand
            | ErrorKind::InvalidArgument
            | ErrorKind::Auth
            | ErrorKind::Cluster => Self::of_redis(details),
            ErrorKind::Canceled | ErrorKind::Backpressure => {
                Self::healing("the connection to Redis was lost".into()).of_the_call()
            }
            ErrorKind::Protocol | ErrorKind::Parse | ErrorKind::NotFound => Self::protocol(),
            ErrorKind::Config | ErrorKind::Tls => Self::unlike(details),
            _ => Self::unlike(details).of_the_call(),
        }
    }
}

impl StoreError {
    fn unlike(details: &str) -> Self {
        let words = own_words(details);
        Self::healing(format!("the connection to Redis failed: {words}"))
    }
}

/// Extracts the TLS error of rustls from its debug output, the only part that fred keeps.
fn tls_message(text: &str) -> Option<String> {
    const KNOWN: [(&str, &str); 8] = [
        (
            "UnknownIssuer",
            "no trusted CA signed the certificate of Redis: set REDIS_TLS_CA_FILE",
        ),
        ("(Expired", "the certificate of Redis has expired"),
        ("(NotValidYet", "the certificate of Redis is not valid yet"),
        (
            "NotValidForName",
            "the certificate of Redis is for another name: set REDIS_TLS_SERVER_NAME, or connect by a name in the certificate",
        ),
        (
            "CertificateRequired",
            "Redis requires a client certificate: set REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE",
        ),
        (
            "AlertReceived(UnknownCA",
            "Redis does not trust the CA of our client certificate: check REDIS_TLS_CERT_FILE",
        ),
        (
            "AlertReceived(CertificateExpired",
            "our client certificate has expired: check REDIS_TLS_CERT_FILE",
        ),
        (
            "AlertReceived(",
            "Redis rejected the TLS handshake: check REDIS_TLS_CERT_FILE and the TLS settings of Redis",
        ),
    ];
    if let Some((_, means)) = KNOWN.iter().find(|(sign, _)| text.contains(sign)) {
        return Some(format!("TLS: {means}"));
    }
    let general = text.split_once("General(\"").map(|(_, rest)| rest);
    if let Some(general) = general {
        let words = general.replace('\\', "");
        return Some(format!(
            "TLS: {}",
            first_sentence(words.trim_end_matches(['"', ')', ' ', '}']))
        ));
    }
    text.contains("InvalidCertificate(")
        .then(|| "TLS: the certificate of Redis is not valid".to_owned())
}

/// Returns the text in `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
fn io_message(text: &str) -> String {
    let words = text
        .split_once("message: \"")
        .or_else(|| text.split_once("error: \""));
    let words = words.and_then(|(_, rest)| rest.split_once('"'));
    words.map_or_else(|| first_sentence(text), |(words, _)| first_sentence(words))
}

/// Returns the text of Redis without quoted data.
fn own_words(text: &str) -> String {
    let end = text.find(". script:").or_else(|| text.find(" script: "));
    foreign_text::cut(&text[..end.unwrap_or(text.len())])
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
            ("ERR max number of clients reached", true),
            (
                "ERR Script attempted to execute a command while the cluster is down script: 5b1c, on @user_script:7.",
                true,
            ),
            (
                "ERR Unknown command called from script script: 5b1c, on @user_script:7.",
                true,
            ),
            (
                "ERR Error running script (call to f_5b1c): @user_script:7: @user_script: 7: Unknown Redis command called from Lua script",
                true,
            ),
            (
                "ERR The user executing the script can't run this command or subcommand",
                true,
            ),
            (
                "ERR ACL failure in script: User sync has no permissions to run the 'set' command",
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

    #[test]
    fn errors_of_the_server_make_no_message_suspect() {
        for (error, of_call) in [
            (StoreError::timeout(), true),
            (StoreError::protocol(), true),
            (
                StoreError::of_redis("BUSY Redis is busy running a script."),
                false,
            ),
            (
                StoreError::of_redis("ERR Protocol error: invalid bulk length"),
                true,
            ),
            (Error::new(ErrorKind::IO, "Connection reset").into(), true),
            (StoreError::of_redis("OOM command not allowed when"), false),
            (StoreError::of_redis("READONLY You can't write"), false),
            (
                StoreError::of_redis("TRYAGAIN Multiple keys request"),
                false,
            ),
            (
                StoreError::of_redis("NOPERM this user has no permissions"),
                false,
            ),
            (StoreError::of_redis("CROSSSLOT Keys in request"), false),
            (StoreError::unconfirmed("0 of 1 replicas"), false),
            (StoreError::looking(), false),
        ] {
            assert_eq!(error.may_be_of_the_call(), of_call, "{error}");
        }
    }
}
