//! What a path asks for. Ids are taken to the letter, percent-decoded once.

use percent_encoding::percent_decode_str;

use crate::keys;
use crate::metrics::ReadRoute;

#[derive(Debug, PartialEq, Eq)]
pub enum Route {
    Livez,
    Readyz,
    Entitlements(String),
    EntitlementsState(String),
    Configuration,
    Credentials,
    /// The decoded segments of the path.
    PassedThrough(Vec<String>),
    Flag(String),
    Flags,
    /// The key of a flag is not UTF-8, or too long.
    MalformedFlag,
    /// Why the path is no question.
    Malformed(&'static str),
    Unknown,
}

/// As in messages.
const MAX_ID_BYTES: usize = 1_024;

const INVALID_ID: &str = "the customer id is empty, longer than 1,024 bytes, has control characters, or would name the keys of another";

impl Route {
    pub fn of(path: &str) -> Self {
        match path {
            "/livez" => return Self::Livez,
            "/readyz" => return Self::Readyz,
            "/ofrep/v1/evaluate/flags" | "/ofrep/v1/evaluate/flags/" => return Self::Flags,
            "/v1/config/server-sdk-configuration.json" => return Self::Configuration,
            _ => {}
        }
        if let Some(key) = path.strip_prefix("/ofrep/v1/evaluate/flags/") {
            return match decoded(key) {
                Some(key) if key.len() <= MAX_ID_BYTES => Self::Flag(key),
                _ => Self::MalformedFlag,
            };
        }
        if let Some(rest) = path.strip_prefix("/v1/c/") {
            let last = rest.rsplit_once('/');
            match last {
                Some((id, "entitlements.json")) => return of_customer(id, Self::Entitlements),
                Some((id, "entitlements-state.json")) => {
                    return of_customer(id, Self::EntitlementsState);
                }
                _ => {}
            }
        }
        match path.strip_prefix("/v1/") {
            Some(_) => passed_through(path),
            None => Self::Unknown,
        }
    }

    /// What it counts as, if it is a question.
    pub fn kind(&self) -> Option<ReadRoute> {
        match self {
            Self::Entitlements(_) => Some(ReadRoute::Entitlements),
            Self::EntitlementsState(_) => Some(ReadRoute::EntitlementsState),
            Self::Configuration => Some(ReadRoute::Configuration),
            Self::PassedThrough(_) | Self::Credentials => Some(ReadRoute::PassedThrough),
            Self::Flag(_) | Self::MalformedFlag => Some(ReadRoute::Flag),
            Self::Flags => Some(ReadRoute::Flags),
            Self::Malformed(_) | Self::Unknown => Some(ReadRoute::PassedThrough),
            Self::Livez | Self::Readyz => None,
        }
    }

    pub fn is_evaluation(&self) -> bool {
        matches!(self, Self::Flag(_) | Self::Flags | Self::MalformedFlag)
    }
}

fn of_customer(id: &str, route: impl FnOnce(String) -> Route) -> Route {
    match decoded(id) {
        Some(id) if is_id(&id) => route(id),
        _ => Route::Malformed(INVALID_ID),
    }
}

/// Whether keys of a customer or a resource may be named so.
pub fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_ID_BYTES
        && !id.chars().any(char::is_control)
        && ![".", ".."].contains(&id)
        && keys::collision_of_owner(id).is_none()
}

/// Percent-decoded; a plus sign stands for itself, as SDKs send it.
pub fn decoded(text: &str) -> Option<String> {
    let decoded = percent_decode_str(text).decode_utf8().ok()?;
    Some(decoded.into_owned())
}

fn passed_through(path: &str) -> Route {
    let segments: Option<Vec<String>> = path[1..].split('/').map(decoded).collect();
    let Some(segments) = segments else {
        return Route::Malformed("the path is not UTF-8");
    };
    let is_odd = |segment: &String| {
        [".", ".."].contains(&name_of(segment))
            || segment.chars().any(char::is_control)
            || segment.contains(['/', '\\'])
    };
    if segments.iter().any(is_odd) {
        return Route::Malformed("the path has a segment that cannot be passed on");
    }
    // Whatever is put around it, and in whatever case.
    if segments
        .iter()
        .any(|segment| name_of(segment).eq_ignore_ascii_case("credentials"))
    {
        return Route::Credentials;
    }
    Route::PassedThrough(segments)
}

/// The segment as servers read it that drop what follows a semicolon.
fn name_of(segment: &str) -> &str {
    segment.split_once(';').map_or(segment, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_customer_is_all_between_its_prefix_and_the_last_name() {
        for (path, customer) in [
            ("/v1/c/acme/entitlements.json", "acme"),
            ("/v1/c/a/b%20c/entitlements.json", "a/b c"),
            ("/v1/c/a%2Fb/entitlements.json", "a/b"),
            ("/v1/c/a%252Fb/entitlements.json", "a%2Fb"),
            ("/v1/c/%C3%BC+x/entitlements.json", "ü+x"),
            ("/v1/c/a/../b/entitlements.json", "a/../b"),
            (
                "/v1/c//entitlements.json/entitlements.json",
                "/entitlements.json",
            ),
            ("/v1/c/credentials/entitlements.json", "credentials"),
        ] {
            assert_eq!(
                Route::of(path),
                Route::Entitlements(customer.into()),
                "{path}"
            );
            let state = path.replace("entitlements.json", "entitlements-state.json");
            if path.matches("entitlements.json").count() == 1 {
                assert_eq!(Route::of(&state), Route::EntitlementsState(customer.into()));
            }
        }
    }

    #[test]
    fn what_could_name_another_is_refused() {
        let long = format!("/v1/c/{}/entitlements.json", "a".repeat(1_025));
        for path in [
            "/v1/c//entitlements.json",
            "/v1/c/a%00/entitlements.json",
            "/v1/c/a%0d%0ab/entitlements.json",
            "/v1/c/../entitlements.json",
            "/v1/c/%2e%2E/entitlements.json",
            "/v1/c/a:f_x/entitlements.json",
            "/v1/c/a%3Ar_site/entitlements.json",
            "/v1/c/a%23timestamp/entitlements.json",
            "/v1/c/%ff/entitlements.json",
            "/v1/x/../credentials",
            "/v1/x/%2e%2e/credentials",
            "/v1/x/..%2f/y",
            "/v1/..;/y",
            "/v1/x/%2e%2e;a=b/y",
            "/v1/x/a%2fb",
            "/v1/x/a%5cb",
            "/v1/x%00",
            long.as_str(),
        ] {
            assert!(matches!(Route::of(path), Route::Malformed(_)), "{path}");
        }
    }

    #[test]
    fn credentials_are_never_passed_on() {
        for path in [
            "/v1/credentials/event-queue.json",
            "/v1/Credentials/event-queue.json",
            "/v1/%63redentials/event-queue.json",
            "/v1//credentials/event-queue.json",
            "/v1/credentials;x=1/event-queue.json",
            "/v1/CREDENTIALS%3bx/event-queue.json",
            "/v1/./credentials/event-queue.json",
        ] {
            let route = Route::of(path);
            assert!(
                !matches!(route, Route::PassedThrough(_)),
                "{path}: {route:?}"
            );
        }
    }

    #[test]
    fn all_else_below_v1_is_passed_on_by_its_segments() {
        let segments = |path: &str| match Route::of(path) {
            Route::PassedThrough(segments) => segments.join("|"),
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(
            segments("/v1/c/acme/subscriptions.json"),
            "v1|c|acme|subscriptions.json"
        );
        assert_eq!(
            segments("/v1/p/a%20b/paywall.json"),
            "v1|p|a b|paywall.json"
        );
        assert_eq!(Route::of("/v2/x"), Route::Unknown);
        assert_eq!(Route::of("/"), Route::Unknown);
        assert_eq!(
            Route::of("/ofrep/v1/evaluate/flags/a%2Fb@limit"),
            Route::Flag("a/b@limit".into())
        );
    }
}
