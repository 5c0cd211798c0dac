//! Cuts what another service says to the words that are its own.
//!
//! Redis, proxies in front of it, SQS and the Edge API quote what they were sent: commands with their arguments, keys,
//! channels, users. Whatever is quoted may name a customer. So only words of a fixed vocabulary pass; anything else
//! is replaced, wherever it stands.

mod aws;

pub use aws::cut_aws;

/// What stands for words that are left out.
const LEFT_OUT: &str = "…";
const MAX_CHARS: usize = 200;

/// Returns the first line of a text, with only words of the vocabulary in it.
pub fn cut(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut cut = String::new();
    let mut is_left_out = false;
    for word in line.split_whitespace() {
        let passes = is_known(word);
        if !passes && is_left_out {
            continue;
        }
        is_left_out = !passes;
        if !cut.is_empty() {
            cut.push(' ');
        }
        cut.push_str(if passes { word } else { LEFT_OUT });
        if cut.chars().count() > MAX_CHARS {
            break;
        }
    }
    cut
}

fn is_known(word: &str) -> bool {
    if word == "[REDACTED]" || word == "[REDACTED]," {
        return true;
    }
    let core = word.trim_matches(['.', ',', ':', ';', '\'', '"', '`', '(', ')', '!', '?', '-']);
    // Punctuation around an empty core is a quoted nothing.
    core.is_empty()
        || CODES.contains(&core)
        || COMMANDS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(core))
        || WORDS
            .split_ascii_whitespace()
            .any(|known| known.eq_ignore_ascii_case(core))
}

/// The first words of errors of Redis, Valkey and proxies.
const CODES: &[&str] = &[
    "ASK",
    "ASKING",
    "BUSY",
    "BUSYGROUP",
    "BUSYKEY",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "DENIED",
    "ERR",
    "EXECABORT",
    "INPROG",
    "INVALIDOBJ",
    "IOERR",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "MOVED",
    "NOADDR",
    "NOAUTH",
    "NOGOODSLAVE",
    "NOGROUP",
    "NOPERM",
    "NOPROTO",
    "NOREPLICAS",
    "NOSCRIPT",
    "NOSUB",
    "NOTBUSY",
    "NOTREADY",
    "OOM",
    "READONLY",
    "REDIRECT",
    "SYNTAX",
    "TRYAGAIN",
    "UNBLOCKED",
    "UNKILLABLE",
    "UNSTABLE",
    "WRONGPASS",
    "WRONGTYPE",
];

/// Commands that the worker and its operator's commands send.
const COMMANDS: &[&str] = &[
    "AUTH",
    "CLIENT",
    "CLUSTER",
    "DEL",
    "EVAL",
    "EVALSHA",
    "GET",
    "HELLO",
    "INFO",
    "MGET",
    "PING",
    "QUIT",
    "SCAN",
    "SCRIPT",
    "SELECT",
    "SENTINEL",
    "SET",
    "TTL",
    "WAIT",
    "XADD",
    "XDEL",
    "XLEN",
    "XRANGE",
    "client|id",
    "client|setname",
    "client|info",
    "cluster|slots",
    "script|load",
    "SLOTS",
    "SETNAME",
    "ID",
    "SETINFO",
    "FLUSHALL",
    "SHUTDOWN",
    "KILL",
    "NOSAVE",
    "REPLICAOF",
    "ACL",
    "EVAL_RO",
];

/// Words of messages, in lower case.
const WORDS: &str = include_str!("said/words.txt");

#[cfg(test)]
mod tests {
    use super::*;

    /// Each form of an error that Redis 6.2, Redis 7, Valkey or a proxy gives, with ids where it quotes.
    #[test]
    fn of_what_redis_says_only_its_own_words_are_kept() {
        for (text, kept) in [
            (
                "ERR unknown command 'EVALSHA', with args beginning with: '5b1c' '5' 'production-acme-9' 'production:c_acme-9#purged' ",
                "ERR unknown command 'EVALSHA', with args beginning with: …",
            ),
            (
                "ERR unknown command `EVALSHA`, with args beginning with: `5b1c`, `production-acme-9`, ",
                "ERR unknown command `EVALSHA`, with args beginning with: …",
            ),
            (
                "ERR unsupported command acme-9",
                "ERR unsupported command …",
            ),
            (
                "ERR value is not an integer or out of range",
                "ERR value is not an integer or out of range",
            ),
            (
                "NOPERM User acme-9 has no permissions to access the 'production:c_acme-9' key",
                "NOPERM User … has no permissions to access the … key",
            ),
            (
                "NOPERM this user has no permissions to run the 'evalsha' command or its subcommand",
                "NOPERM this user has no permissions to run the 'evalsha' command or its subcommand",
            ),
            (
                "NOPERM this user has no permissions to access one of the keys used as arguments",
                "NOPERM this user has no permissions to access one of the keys used as arguments",
            ),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value script: 5b1c, on @user_script:17.",
                "WRONGTYPE Operation against a key holding the wrong kind of value script: … on …",
            ),
            (
                "ERR Error running script (call to f_5b1c): @user_script:13: @user_script: 13: acme-9",
                "ERR Error running script (call to …",
            ),
            ("MOVED 15882 acme-9.example:7001", "MOVED …"),
            ("ASK 15882 10.0.0.9:7001", "ASK …"),
            (
                "CROSSSLOT Keys in request don't hash to the same slot",
                "CROSSSLOT Keys in request don't hash to the same slot",
            ),
            (
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            ),
            (
                "EXECABORT Transaction discarded because of previous errors.",
                "EXECABORT Transaction discarded because of previous errors.",
            ),
            (
                "MISCONF Errors writing to the AOF file: No space left in acme-9",
                "MISCONF Errors writing to the AOF file: No … in …",
            ),
            (
                "ERR max number of clients reached",
                "ERR max number of clients reached",
            ),
            (
                "ERR wrong number of arguments for 'acme-9' command",
                "ERR wrong number of arguments for … command",
            ),
            ("acme-9 42 {production}:c_acme", "…"),
            ("", ""),
        ] {
            assert_eq!(cut(text), kept);
        }
    }

    /// Replies of Redis 6.2, Redis 7 and Valkey that a command of the worker may meet; `acme-9` stands where a reply
    /// quotes, or could quote, what it was sent.
    #[test]
    fn no_reply_of_a_server_shows_what_was_sent() {
        const REPLIES: [&str; 58] = [
            "-ERR syntax error",
            "ERR no such key",
            "ERR source and destination objects are the same",
            "ERR index out of range",
            "ERR invalid expire time in 'set' command",
            "ERR invalid expire time in acme-9",
            "ERR DB index is out of range",
            "ERR invalid DB index",
            "ERR SELECT is not allowed in cluster mode",
            "ERR operation not permitted",
            "ERR unknown subcommand 'acme-9'. Try CLIENT HELP.",
            "ERR Unknown subcommand or wrong number of arguments for 'acme-9'. Try CLIENT HELP.",
            "ERR unknown command 'acme-9', with args beginning with: 'production:c_acme-9' ",
            "ERR unknown command `acme-9`, with args beginning with: `production:c_acme-9`, ",
            "ERR wrong number of arguments for 'acme-9' command",
            "ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            "ERR Protocol error: invalid bulk length",
            "ERR Protocol error: too big mbulk count string",
            "ERR Protocol error: expected '$', got 'acme-9'",
            "ERR Number of keys can't be greater than number of args",
            "ERR Number of keys can't be negative",
            "ERR value is not an integer or out of range",
            "ERR value is out of range, must be positive",
            "ERR value is not a valid float",
            "ERR max number of clients reached",
            "ERR max number of clients + cluster connections reached",
            "ERR Error running script (call to f_acme): @user_script:7: @user_script: 7: acme-9",
            "ERR Error compiling script (new function): user_script:1: near 'acme-9'",
            "ERR user_script:12: acme-9 script: 5b1c, on @user_script:12.",
            "ERR Wrong number of args calling Redis command from script script: 5b1c, on @user_script:9.",
            "ERR Unknown Redis command called from script script: 5b1c, on @user_script:9.",
            "ERR This Redis command is not allowed from script script: 5b1c, on @user_script:9.",
            "ERR Script attempted to access a non local key in a cluster node script: acme-9",
            "ERR Write commands are not allowed from read-only scripts. acme-9",
            "ERR AUTH <password> called without any password configured for the default user acme-9",
            "ERR invalid password",
            "ERR The user executing the script can't access at least one of the keys mentioned acme-9",
            "ERR ACL failure in script: User acme-9 has no permissions to access the 'production:c_acme-9' key",
            "NOPERM User acme-9 has no permissions to run the 'evalsha' command",
            "NOPERM No permissions to access a key 'production:c_acme-9'",
            "NOPERM this user has no permissions to access the 'acme-9' channel",
            "NOAUTH Authentication required.",
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH acme-9 option can be used",
            "WRONGPASS invalid username-password pair or user is disabled. acme-9",
            "NOSCRIPT No matching script. Please use EVAL. acme-9",
            "LOADING Redis is loading the dataset in memory",
            "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE. acme-9",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'. acme-9",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. acme-9",
            "READONLY You can't write against a read only replica. acme-9",
            "NOREPLICAS Not enough good replicas to write. acme-9",
            "OOM command not allowed when used memory > 'maxmemory'. acme-9",
            "EXECABORT Transaction discarded because of: acme-9",
            "CLUSTERDOWN Hash slot not served acme-9",
            "CROSSSLOT Keys in request don't hash to the same slot acme-9",
            "TRYAGAIN Multiple keys request during rehashing of slot acme-9",
            "MOVED 15882 acme-9:6379",
            "UNKILLABLE Sorry the script already executed write commands against the dataset. acme-9",
        ];
        for reply in REPLIES {
            let shown = cut(reply);
            assert!(!shown.contains("acme"), "{shown}");
            let code = reply
                .trim_start_matches('-')
                .split(' ')
                .next()
                .unwrap_or_default();
            assert!(
                shown.trim_start_matches('-').starts_with(code),
                "{reply}: {shown}"
            );
            assert!(shown.len() > code.len(), "{reply}: {shown}");
        }
    }
}
