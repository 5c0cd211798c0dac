//! Finds what tools and habits leave around and in values: quotes, comments, line breaks, and placeholders that no
//! tool replaced.

use super::VARIABLES;
use super::foreign;
use super::read::Reader;

/// Removes them and reports them: an error, or a warning for a secret, which may contain such characters
/// itself. A line break at the end of a secret is dropped, as in a file.
pub fn values(
    read: &mut Reader,
    environment: Vec<(String, String)>,
    warnings: &mut Vec<String>,
) -> Vec<(String, String)> {
    environment
        .into_iter()
        .map(|(name, value)| {
            let ours = VARIABLES.iter().find(|variable| variable.name == name);
            let value = match ours {
                Some(variable) if variable.secret => secret(read, &name, value, warnings),
                Some(_) => plain(read, &name, &value),
                None if foreign::is_used(&name) => plain(read, &name, &value),
                None => value,
            };
            (name, value)
        })
        .collect()
}

fn plain(read: &mut Reader, name: &str, value: &str) -> String {
    let mut value = value.trim();
    if value.contains(['\n', '\r']) {
        read.problem(name, "holds a line break: write it on one line");
        return value.replace(['\n', '\r'], "");
    }
    if let Some(start) = comment(value) {
        value = value[..start].trim_end();
        read.problem(
            name,
            "ends in a comment, which becomes part of the value: write it without",
        );
    }
    if value.starts_with(is_quote) || value.ends_with(is_quote) {
        read.problem(name, IN_QUOTES);
        value = value.trim_matches(is_quote).trim();
    }
    if let Some(placeholder) = placeholder(value) {
        read.problem(name, format!("holds {placeholder}, which {NOT_REPLACED}"));
    }
    value.to_owned()
}

fn secret(read: &mut Reader, name: &str, value: String, warnings: &mut Vec<String>) -> String {
    let value = without_last_break(&value);
    if has_break(value) {
        read.problem(name, BREAK);
    }
    // A secret may look like anything, but hardly like a placeholder and nothing else; in a URL, a brace is escaped.
    let found = placeholder(value);
    if found.is_some_and(|it| it == value.trim() || (it.ends_with('}') && value.contains("://"))) {
        read.problem(
            name,
            format!("is or holds a placeholder as in ${{NAME}}, which {NOT_REPLACED}"),
        );
        return value.to_owned();
    }
    warnings.extend(doubt(name, value));
    value.to_owned()
}

/// The error text for a value in quotes.
pub const IN_QUOTES: &str =
    "is in quotes, which become part of the value, as with docker run --env-file: write it without";

/// The error text for a placeholder that was not replaced.
const NOT_REPLACED: &str = "was not replaced: docker run --env-file replaces no placeholders, and Kubernetes only $(NAME) of variables set earlier; write the value itself";

/// The error text for a secret that holds a line break.
pub const BREAK: &str =
    "contains a line break, so it has more than one line: write only the secret";

/// Removes the line break that `echo secret | base64` adds to a secret.
pub fn without_last_break(secret: &str) -> &str {
    secret.trim_end_matches(['\n', '\r'])
}

pub fn has_break(secret: &str) -> bool {
    secret.contains(['\n', '\r'])
}

/// Returns a warning about a secret that looks as if it was quoted or commented.
pub fn doubt(name: &str, secret: &str) -> Option<String> {
    let trimmed = secret.trim();
    let mut letters = trimmed.chars();
    let (first, last) = (letters.next(), letters.next_back());
    let is_quoted = last.is_some_and(is_quote) && first.is_some_and(is_quote);
    let what = if is_quoted {
        "begins and ends with a quote"
    } else if comment(trimmed).is_some() {
        "ends in what looks like a comment"
    } else if placeholder(trimmed).is_some() {
        "holds what looks like a placeholder that was not replaced"
    } else {
        return None;
    };
    Some(format!(
        "{name} {what}, which becomes part of the secret: remove it if it is not intended"
    ))
}

pub fn is_quote(letter: char) -> bool {
    matches!(letter, '"' | '\'' | '`' | '“' | '”' | '‘' | '’')
}

/// Finds the start of a comment: a space, then `#`.
fn comment(value: &str) -> Option<usize> {
    [" #", "\t#"].iter().filter_map(|it| value.find(it)).min()
}

/// Finds the first `${NAME}` or `$(NAME)`, with or without a default as in `${NAME:-x}`.
fn placeholder(value: &str) -> Option<&str> {
    let starts = value.match_indices('$').map(|(at, _)| &value[at..]);
    starts.into_iter().find_map(|rest| {
        let end = match rest.as_bytes().get(1)? {
            b'{' => '}',
            b'(' => ')',
            _ => return None,
        };
        let (inner, _) = rest[2..].split_once(end)?;
        let name = inner.split([':', '-', '?', '+', '=']).next()?;
        let is_name = name.starts_with(|it: char| it.is_ascii_alphabetic() || it == '_')
            && name
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'_' || it == b'.');
        is_name.then(|| &rest[..inner.len() + 3])
    })
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{errors, load};
    use secrecy::ExposeSecret;

    #[test]
    fn quotes_and_comments_around_values_are_errors_that_name_the_variable() {
        for (name, value, says) in [
            ("ENVIRONMENT_PREFIX", "\"production\"", "in quotes"),
            ("ENVIRONMENT_PREFIX", "'production'", "in quotes"),
            ("REDIS_URL", "\"redis://cache:6379\"", "in quotes"),
            ("REDIS_URL", "'redis://:s@cache:6379'", "in quotes"),
            ("ENVIRONMENT_PREFIX", " “production” ", "in quotes"),
            ("ENVIRONMENT_PREFIX", "production # the prefix", "a comment"),
            ("ENVIRONMENT_PREFIX", "production\t#prefix", "a comment"),
            ("ENVIRONMENT_PREFIX", "a\nb", "line break"),
            ("REDIS_ENVIRONMENT_PREFIX", "\"production\"", "in quotes"),
            ("REDIS_HOST", "\"redis\"", "in quotes"),
            ("REDIS_PORT", "'6379'", "in quotes"),
            ("REDIS_TLS", "\"1\"", "in quotes"),
            ("BATCH_SIZE", "10 # most", "a comment"),
            (
                "QUEUE_URL",
                "'https://sqs.eu-west-1.amazonaws.com/1/q'",
                "in quotes",
            ),
            (
                "EDGE_API_URL",
                "https://edge.example.com # ours",
                "a comment",
            ),
            ("AWS_REGION", "\"eu-west-1\"", "in quotes"),
            ("REDIS_USER", "'me'", "in quotes"),
            ("LOG_LEVEL", "\"debug\"", "in quotes"),
            ("CACHE_UPDATE_POLICY", "`UPSERT`", "in quotes"),
            ("AWS_PROFILE", "\"sync\"", "in quotes"),
            ("https_proxy", "'http://proxy:3128'", "in quotes"),
        ] {
            let password = ("REDIS_PASSWORD", "p");
            let errors = errors(&[(name, value), password]);
            assert_eq!(errors.len(), 1, "{name}={value}: {errors:?}");
            assert!(
                errors[0].starts_with(&format!("{name} ")) && errors[0].contains(says),
                "{}",
                errors[0]
            );
        }
        assert!(errors(&[("ENVIRONMENT_PREFIX", "it's#1")]).is_empty());
    }

    #[test]
    fn quotes_around_secrets_are_warned_of_and_kept() {
        for (name, value, says) in [
            ("REDIS_PASSWORD", "\"canary\"", "a quote"),
            ("REDIS_PASSWORD", "'canary'", "a quote"),
            ("SERVER_API_KEY", "\"canary\"", "a quote"),
            ("SERVER_API_KEY", "canary # of staging", "a comment"),
        ] {
            let config = load(&[(name, value)]).unwrap();
            let [warning] = &config.warnings[..] else {
                panic!("{name}: {:?}", config.warnings)
            };
            assert!(
                warning.starts_with(name) && warning.contains(says) && !warning.contains("canary"),
                "{warning}"
            );
        }
        let config = load(&[("REDIS_PASSWORD", "\"canary\"")]).unwrap();
        let login = config.redis().login.current().unwrap().unwrap();
        assert_eq!(login.1.as_deref(), Some("\"canary\""));
        for fine in ["\"", "it's", "a#b", "can\"ary", "\"canary"] {
            let config = load(&[("REDIS_PASSWORD", fine)]).unwrap();
            assert_eq!(config.warnings, Vec::<String>::new(), "{fine}");
        }
    }

    #[test]
    fn a_placeholder_that_was_not_replaced_is_an_error() {
        for (name, value, shown) in [
            ("ENVIRONMENT_PREFIX", "${ENV}", "holds ${ENV}, "),
            ("ENVIRONMENT_PREFIX", "stigg-$(ENV)", "holds $(ENV), "),
            ("REDIS_HOST", "${HOST:-redis}", "holds ${HOST:-redis}, "),
            ("REDIS_PORT", "$(PORT)", "holds $(PORT), "),
            ("QUEUE_URL", "https://${HOST}/1/q", "holds ${HOST}, "),
            ("AWS_REGION", "${AWS_REGION}", "holds ${AWS_REGION}, "),
            ("AWS_PROFILE", "${PROFILE}", "holds ${PROFILE}, "),
            ("REDIS_PASSWORD", "${CANARY}", "holds a placeholder"),
            ("SERVER_API_KEY", "$(CANARY)", "holds a placeholder"),
            ("REDIS_URL", "redis://:${CANARY}@cache", "a placeholder"),
            ("SENTRY_DSN", "https://${CANARY}@host/1", "a placeholder"),
        ] {
            let errors = errors(&[(name, value)]);
            let [error] = &errors[..] else {
                let is_named = errors[0].starts_with(name) && errors[0].contains(shown);
                assert!(is_named, "{name}={value}: {errors:?}");
                continue;
            };
            assert!(
                error.starts_with(name) && error.contains(shown) && error.contains("not replaced"),
                "{error}"
            );
            assert!(!error.contains("CANARY"), "{error}");
        }
        for fine in [
            "{production}",
            "a$b",
            "$",
            "${",
            "$()",
            "${1}",
            "a${b",
            "$$(",
            "${a b}",
        ] {
            assert!(errors(&[("ENVIRONMENT_PREFIX", fine)]).is_empty(), "{fine}");
        }
        for password in ["p${a}ss", "x$(b)"] {
            let config = load(&[("REDIS_PASSWORD", password)]).unwrap();
            let login = config.redis().login.current().unwrap().unwrap();
            assert_eq!(login.1.as_deref(), Some(password));
            let [warning] = &config.warnings[..] else {
                panic!("{:?}", config.warnings)
            };
            assert!(
                warning.contains("a placeholder") && !warning.contains(password),
                "{warning}"
            );
        }
        for fine in ["pa$$word", "$ecret", "${9}", "$(", "a$}{b"] {
            let config = load(&[("REDIS_PASSWORD", fine)]).unwrap();
            assert_eq!(config.warnings, Vec::<String>::new(), "{fine}");
        }
    }

    #[test]
    fn a_line_break_ends_a_secret_and_is_an_error_within() {
        for ending in ["\n", "\r\n", "\n\n"] {
            let config = load(&[
                ("REDIS_PASSWORD", &format!(" canary {ending}")),
                ("SERVER_API_KEY", &format!("key{ending}")),
                ("AWS_ACCESS_KEY_ID", &format!("AKIA{ending}")),
                ("AWS_SECRET_ACCESS_KEY", &format!("secret{ending}")),
            ])
            .unwrap();
            let login = config.redis().login.current().unwrap().unwrap();
            assert_eq!(login.1.as_deref(), Some(" canary "));
            assert_eq!(config.edge.api_key.expose_secret(), "key");
            let keys = config.queue.credentials.unwrap();
            assert_eq!(keys.access_key_id.expose_secret(), "AKIA");
            assert_eq!(keys.secret_access_key.expose_secret(), "secret");
        }
        for name in [
            "REDIS_PASSWORD",
            "SERVER_API_KEY",
            "AWS_SESSION_TOKEN",
            "SENTRY_DSN",
            "REDIS_URL",
        ] {
            let broken = errors(&[(name, "canary\ncanary\n")]);
            assert!(
                broken
                    .iter()
                    .any(|it| it.starts_with(&format!("{name} contains a line break"))),
                "{name}: {broken:?}"
            );
            assert!(!broken.concat().contains("canary"), "{broken:?}");
        }
    }
}
