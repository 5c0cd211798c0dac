//! The configuration in force, for whoever looks.

use std::collections::BTreeMap;

use super::{Need, VARIABLES, Variable};

/// Variables and their values, set or by default; of a secret only that it is set.
pub fn effective(known: &[(String, String)]) -> BTreeMap<&'static str, String> {
    let value_of = |variable: &Variable| {
        let set = known
            .iter()
            .find(|(name, value)| name == variable.name && !value.trim().is_empty());
        match (set, variable.need) {
            (Some(_), _) if variable.secret => Some("set".to_owned()),
            (Some((_, value)), _) => Some(value.trim().to_owned()),
            (None, Need::Default(default)) => Some(default.to_owned()),
            (None, _) => None,
        }
    };
    VARIABLES
        .iter()
        .filter_map(|variable| Some((variable.name, value_of(variable)?)))
        .collect()
}
