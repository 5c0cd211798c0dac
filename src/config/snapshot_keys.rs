//! Reads the keys of snapshots alone, for a command that needs no other variable.

use secrecy::ExposeSecret;

use super::ConfigErrors;
use super::read::Reader;
use super::secret_file;
use super::tidy;
use crate::snapshot::Secret;

/// Returns `SNAPSHOT_KEY`, or its alias, and then `SNAPSHOT_KEY_PREVIOUS`, as far as they are set.
pub fn snapshot_keys(environment: Vec<(String, String)>) -> Result<Vec<Secret>, ConfigErrors> {
    const VARIABLES: [(&str, &str); 3] = [
        ("SNAPSHOT_KEY", "SNAPSHOT_KEY_FILE"),
        ("MEM_ENCRYPTION_KEY", ""),
        ("SNAPSHOT_KEY_PREVIOUS", "SNAPSHOT_KEY_PREVIOUS_FILE"),
    ];
    let mut read = Reader::default();
    let is_ours = |name: &str| {
        VARIABLES
            .iter()
            .any(|(key, file)| [*key, *file].contains(&name))
    };
    let environment = environment.into_iter().filter(|(name, _)| is_ours(name));
    let environment = tidy::values(&mut read, environment.collect(), &mut Vec::new());
    let value = |name: &str| {
        let found = environment.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.clone())
    };
    let mut keys = Vec::new();
    for (name, file) in VARIABLES {
        let given = secret_file::given(&mut read, (name, value(name)), (file, value(file)));
        let Some(text) = given.map(|given| given.secret) else {
            continue;
        };
        match Secret::parse(text.expose_secret()) {
            Ok(key) => keys.push(key),
            Err(problem) => read.problem(name, problem),
        }
    }
    read.finish(keys)
}
