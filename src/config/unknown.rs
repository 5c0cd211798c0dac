//! Finds variables that look like ours and are not, which usually is a typo.

use super::{VARIABLES, foreign};

/// Prefixes of variables that are meant for this service.
const OWN_PREFIXES: [&str; 11] = [
    "REDIS_",
    "QUEUE_",
    "CACHE_",
    "KEYS_",
    "BATCH_",
    "CONSUMER",
    "EDGE_API_",
    "LOCAL_",
    "READ_",
    "SHUTDOWN_",
    "ENVIRONMENT_",
];

/// The number of wrong, missing or extra letters that still counts as a typo.
const MAX_TYPO_LETTERS: usize = 2;

pub fn warnings(environment: &[(String, String)]) -> Vec<String> {
    let names = environment.iter();
    let names = names.filter(|(name, value)| !foreign::is_injected(name, value.trim()));
    let mut names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.into_iter().filter_map(warning).collect()
}

fn warning(name: &str) -> Option<String> {
    if foreign::is_known(name) {
        return None;
    }
    let looks_like_ours = OWN_PREFIXES.iter().any(|start| name.starts_with(start));
    let nearest = VARIABLES
        .iter()
        .map(|variable| variable.name)
        // An environment may have hundreds of names, and most resemble none of ours.
        .filter(|ours| looks_like_ours || ours.len().abs_diff(name.len()) <= MAX_TYPO_LETTERS)
        .map(|ours| (strsim::damerau_levenshtein(name, ours), ours))
        .min()?;
    let is_typo = nearest.0 <= MAX_TYPO_LETTERS && name.len() > 5;
    if is_typo {
        return Some(format!(
            "{name} is not a variable of this service: did you mean {}?",
            nearest.1
        ));
    }
    looks_like_ours.then(|| {
        format!(
            "{name} is not a variable of this service and has no effect; the nearest is {}",
            nearest.1
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_letters_too_many_or_missing_are_a_typo_and_three_are_none() {
        for typo in ["LOG_LEVELLS", "LOG_LEV", "LOG_LEBLE"] {
            let text = warning(typo).unwrap_or_default();
            assert!(text.ends_with("did you mean LOG_LEVEL?"), "{typo}: {text}");
        }
        for none in ["LOG_LEVEL", "LOG_LEVELLED", "LOG_LE", "HOME", "PATH"] {
            assert_eq!(warning(none), None, "{none}");
        }
    }
}
