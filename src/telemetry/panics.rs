//! Logs panics: the location, and the message without quotations, which may be part of a body.

use std::panic::PanicHookInfo;
use std::time::Duration;

use super::Lines;

/// How long a panic waits for its line: the process may end right after it, and another thread writes the line.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);
const MAX_CHARS: usize = 200;

/// Logs each panic from now on.
pub fn log(lines: Lines) {
    std::panic::set_hook(Box::new(move |panic| {
        let location = panic.location().map(ToString::to_string);
        let detail = message(panic).map(without_quotes);
        tracing::error!(location, detail, "panicked");
        lines.flush(FLUSH_TIMEOUT);
    }));
}

fn message<'a>(panic: &'a PanicHookInfo<'_>) -> Option<&'a str> {
    let payload = panic.payload();
    let literal = payload.downcast_ref::<&str>().copied();
    literal.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
}

/// Returns the first line of a text, with `…` instead of quotations.
fn without_quotes(text: &str) -> String {
    let mut shown = String::new();
    let mut quote = None;
    let mut before = ' ';
    for letter in text.lines().next().unwrap_or_default().chars() {
        let is_apostrophe = letter == '\'' && before.is_alphanumeric();
        match quote {
            Some(end) if letter == end && before != '\\' => {
                shown.push('…');
                quote = None;
            }
            Some(_) => {}
            None if matches!(letter, '"' | '`' | '\'') && !is_apostrophe => quote = Some(letter),
            None => shown.push(letter),
        }
        before = letter;
    }
    if quote.is_some() {
        shown.push('…');
    }
    shown.chars().take(MAX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::without_quotes;

    #[test]
    fn what_a_message_quotes_is_left_out() {
        for (message, shown) in [
            ("invalid max attempts: 0\nmore", "invalid max attempts: 0"),
            (
                "byte index 9 is out of bounds of `canary`",
                "byte index 9 is out of bounds of …",
            ),
            (
                r#"called `Result::unwrap()` on an `Err` value: Error("canary \" canary", line: 1)"#,
                "called … on an … value: Error(…, line: 1)",
            ),
            (
                "it doesn't fit inside 'é' (bytes 0..2) of `canary",
                "it doesn't fit inside … (bytes 0..2) of …",
            ),
        ] {
            assert_eq!(without_quotes(message), shown);
        }
        assert_eq!(without_quotes(&"x".repeat(1000)).len(), 200);
    }
}
