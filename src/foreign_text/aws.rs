//! Removes values, quotations, tokens and receipts from texts of AWS. Its errors name roles, resources and hosts,
//! which an operator needs, so no vocabulary applies.

/// Maximum characters of a message.
const MAX_CHARS: usize = 300;
/// Minimum characters of a token or a receipt: a text of this length that is neither words nor an ARN.
const MIN_TOKEN_CHARS: usize = 32;

/// Returns the first line of a message without values of parameters, tokens and
/// long texts. AWS repeats signed headers on the following lines.
pub fn cut_aws(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let line = without_quotations(&without_value(line));
    let mut shown = String::new();
    for (position, word) in line.split(' ').enumerate() {
        if position > 0 {
            shown.push(' ');
        }
        match is_token(word) {
            true => shown.push('…'),
            false => shown.push_str(word),
        }
    }
    shown
        .chars()
        .filter(|letter| !letter.is_control())
        .take(MAX_CHARS)
        .collect()
}

/// `Value acme for parameter MessageGroupId is invalid` repeats the value.
fn without_value(line: &str) -> String {
    for (start, end) in [("Value ", " for parameter"), ("Value '", "' at '")] {
        if let Some(at) = line.find(start)
            && let Some(length) = line[at..].find(end)
        {
            let (before, rest) = (&line[..at + start.len()], &line[at + length..]);
            return format!("{before}…{rest}");
        }
    }
    line.to_owned()
}

/// Removes quoted words, which mostly are values that were sent. A path, a host, an ARN and the code of an error stay.
fn without_quotations(line: &str) -> String {
    let (mut shown, mut rest) = (String::new(), line);
    while let Some(start) = rest.find(['"', '\'', '`']) {
        let quote = rest[start..].chars().next().unwrap_or('"');
        let (before, quoted) = (&rest[..start], &rest[start + 1..]);
        // An apostrophe is within a word.
        let opens = !before.ends_with(|letter: char| letter.is_alphanumeric());
        let closes = quoted.match_indices(quote).find(|(at, _)| {
            let next = quoted[at + 1..].chars().next();
            next.is_none_or(|letter| !letter.is_alphanumeric())
        });
        match closes.filter(|_| opens) {
            Some((end, _)) => {
                let inside = &quoted[..end];
                let is_place = inside.contains(['/', ':', '.', ' ']);
                let is_code = inside.starts_with(|it: char| it.is_ascii_uppercase())
                    && inside.bytes().all(|it| it.is_ascii_alphabetic());
                shown.push_str(before);
                shown.push(quote);
                shown.push_str(if is_place || is_code { inside } else { "…" });
                shown.push(quote);
                rest = &quoted[end + 1..];
            }
            None => {
                shown.push_str(&rest[..=start]);
                rest = quoted;
            }
        }
    }
    shown + rest
}

/// Returns whether a word is a long text of letters and digits, for example a receipt handle. Paths, URLs, ARNs and
/// names with dashes have separators.
fn is_token(word: &str) -> bool {
    let parts = word.split([':', '.', ',', '(', ')', '"', '\'', '-', '_']);
    let of_tokens = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=%".contains(&byte);
    let is_of_token = |part: &str| {
        part.len() >= MIN_TOKEN_CHARS
            && part.bytes().all(of_tokens)
            && part.bytes().any(|byte| byte.is_ascii_digit())
            && !part.starts_with('/')
    };
    parts.into_iter().any(is_of_token)
}

#[cfg(test)]
mod tests {
    use super::cut_aws;

    #[test]
    fn what_is_ours_is_cut_out_of_what_a_service_says() {
        let receipt = "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a9canarycanary+/==";
        for (message, shown) in [
            (
                format!("The input receipt handle \"{receipt}\" is not a valid receipt handle."),
                "The input receipt handle … is not a valid receipt handle.",
            ),
            (
                "Value acme corp for parameter MessageGroupId is invalid. Reason: none".into(),
                "Value … for parameter MessageGroupId is invalid. Reason: none",
            ),
            (
                "1 validation error detected: Value 'canary' at 'entries' failed".into(),
                "1 validation error detected: Value '…' at '…' failed",
            ),
            (
                "The queue doesn't know 'canary' or \"canary\", at 'https://sqs.eu-west-1.amazonaws.com'".into(),
                "The queue doesn't know '…' or \"…\", at 'https://sqs.eu-west-1.amazonaws.com'",
            ),
            (
                format!("The request signature we calculated does not match.\n\nx-amz-security-token:{receipt}"),
                "The request signature we calculated does not match.",
            ),
            (
                "User: arn:aws:sts::123456789012:assumed-role/prod-entitlement-sync-worker-role/i-0123456789abcdef0 is not authorized to perform: sqs:receivemessage".into(),
                "User: arn:aws:sts::123456789012:assumed-role/prod-entitlement-sync-worker-role/i-0123456789abcdef0 is not authorized to perform: sqs:receivemessage",
            ),
            (
                "AWS_WEB_IDENTITY_TOKEN_FILE /var/run/secrets/eks.amazonaws.com/serviceaccount/token".into(),
                "AWS_WEB_IDENTITY_TOKEN_FILE /var/run/secrets/eks.amazonaws.com/serviceaccount/token",
            ),
        ] {
            assert_eq!(cut_aws(&message), shown);
        }
        assert_eq!(cut_aws(&"long ".repeat(1000)).len(), 300);
    }
}
