//! Reduces texts of other services to the words of a fixed vocabulary.
//!
//! Redis, proxies in front of it, SQS and the Edge API quote what they were sent: commands with their arguments, keys,
//! channels, users. A quotation may name a customer. So only words of the vocabulary pass, and every other word
//! is replaced.

mod aws;

pub use aws::cut_aws;

/// The replacement of omitted words.
const OMITTED: &str = "…";
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
        cut.push_str(if passes { word } else { OMITTED });
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
    let core = word.trim_matches([
        '.', ',', ':', ';', '\'', '"', '`', '(', ')', '!', '?', '-', '<', '>', '=', '$', '*', '_',
        '+',
    ]);
    // Punctuation around an empty core quotes an empty text.
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
    "NOQUORUM",
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
const WORDS: &str = include_str!("foreign_text/words.txt");

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

    /// Its first lines describe its contents.
    const REPLIES: &str = include_str!("foreign_text/replies.tsv");

    fn replies() -> impl Iterator<Item = &'static str> {
        let lines = REPLIES.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split('\t').nth(2).unwrap())
    }

    #[test]
    fn no_reply_of_a_server_shows_what_was_sent() {
        let mut seen = 0;
        for reply in replies() {
            let shown = cut(reply);
            assert!(!shown.contains("acme"), "{reply}: {shown}");
            let code = reply.split(' ').next().unwrap();
            assert_eq!(shown.split(' ').next(), Some(code), "{reply}: {shown}");
            seen += 1;
        }
        assert!(seen > 140, "{seen}");
    }

    /// So that an operator can read what a server says.
    #[test]
    fn of_what_is_a_servers_own_most_is_shown() {
        let mut dropped = Vec::new();
        for reply in replies() {
            // The last word may be cut off there.
            let within = match reply.get(..MAX_CHARS) {
                Some(start) => start.rsplit_once(' ').map_or(start, |(start, _)| start),
                None => reply,
            };
            let own = within
                .split_once(" script: ")
                .map_or(within, |(own, _)| own);
            let of_script =
                |word: &&str| !word.contains("_script:") && !word.contains("f_production");
            let words = own.split(' ').filter(|word| !word.contains("acme-9"));
            let is_number = |word: &&str| word.bytes().any(|byte| byte.is_ascii_digit());
            let words = words.filter(|word| of_script(word) && !is_number(word));
            let unknown: Vec<&str> = words.filter(|word| !is_known(word)).collect();
            if !unknown.is_empty() {
                dropped.push(format!("{}: {own}", unknown.join(" ")));
            }
        }
        assert!(dropped.is_empty(), "{}", dropped.join("\n"));
    }
}
