//! Lists the effective configuration, for the log line at start and `config`.

use std::collections::BTreeMap;
use std::fmt;

use url::Url;

use super::{Need, VARIABLES, Variable};

/// A variable that has a value, and the origin of the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: &'static str,
    /// `set` for a secret; a URL without its user and password.
    pub value: String,
    pub origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Default,
    Environment,
    /// Set under another name, which the environment has.
    Alias(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Environment => f.write_str("environment"),
            Self::Alias(name) => write!(f, "alias {name}"),
        }
    }
}

/// Variables of other programs that this service accepts. The first one found wins.
const SPELLINGS: [(&str, &[&str]); 3] = [
    ("HTTPS_PROXY", &["https_proxy", "ALL_PROXY", "all_proxy"]),
    ("HTTP_PROXY", &["http_proxy", "ALL_PROXY", "all_proxy"]),
    ("NO_PROXY", &["no_proxy"]),
];

/// Returns every variable that has a value, once, under its main name.
pub fn entries(environment: &[(String, String)]) -> Vec<Entry> {
    let set = |name: &str| {
        let (_, value) = environment.iter().find(|(known, _)| known == name)?;
        let value = value.trim();
        (!value.is_empty()).then_some(value)
    };
    let found = |variable: &Variable| -> Option<(String, Origin)> {
        if let Some(value) = set(variable.name) {
            return Some((value.to_owned(), Origin::Environment));
        }
        let aliases = VARIABLES
            .iter()
            .filter(|other| other.need == Need::Alias(variable.name))
            .map(|other| other.name);
        let spellings = SPELLINGS
            .iter()
            .filter(|(name, _)| *name == variable.name)
            .flat_map(|(_, others)| others.iter().copied());
        let alias = aliases
            .chain(spellings)
            .find_map(|name| Some((set(name)?.to_owned(), Origin::Alias(name))));
        match variable.need {
            Need::Default(default) => alias.or(Some((default.to_owned(), Origin::Default))),
            _ => alias,
        }
    };
    VARIABLES
        .iter()
        .filter(|variable| !matches!(variable.need, Need::Alias(_)))
        .filter_map(|variable| {
            let (value, origin) = found(variable)?;
            Some(Entry {
                name: variable.name,
                value: match variable.secret {
                    true => "set".to_owned(),
                    false => without_password(value),
                },
                origin,
            })
        })
        .collect()
}

/// Returns variables and their values, set or by default; for a secret, only that it is set.
pub fn effective(environment: &[(String, String)]) -> BTreeMap<&'static str, String> {
    let entries = entries(environment).into_iter();
    entries.map(|entry| (entry.name, entry.value)).collect()
}

/// A proxy's URL may hold a user and a password, with or without its scheme.
fn without_password(value: String) -> String {
    let is_url = value.contains("://");
    let may_hide = value.contains('@') || is_url && value.contains(['?', '#']);
    if !may_hide {
        return value;
    }
    match Url::parse(&value) {
        Ok(mut url) if url.has_host() => {
            // A query may hold a key.
            url.set_query(None);
            url.set_fragment(None);
            // Neither can fail on a URL with a host.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.into()
        }
        _ => value
            .rsplit_once('@')
            .map_or_else(String::new, |(_, host)| host.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (value, shown) in [
            ("http://user:canary@proxy:3128", "http://proxy:3128/"),
            ("user:canary@proxy:3128", "proxy:3128"),
            ("http://proxy:3128", "http://proxy:3128"),
            ("https://host/spans?key=canary", "https://host/spans"),
            ("http://user:57/#canary@proxy:3128", "http://user:57/"),
            ("a,b", "a,b"),
        ] {
            assert_eq!(without_password(value.into()), shown);
        }
    }
}
