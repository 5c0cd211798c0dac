//! Judges the folder of the snapshots: whether this process may write there, and whether a worker uses it.

use entitlement_sync::config::SnapshotConfig;
use entitlement_sync::memory::NOT_KEPT;
use entitlement_sync::snapshot::{Folder, OpenError, Secret};
use secrecy::ExposeSecret;

use super::finding::Check;

const NAME: &str = "snapshots";

/// Opens the folder as the worker does, which creates it.
pub fn check(snapshots: Option<&SnapshotConfig>, prefix: &str, is_memory: bool) -> Option<Check> {
    let Some(snapshots) = snapshots else {
        return is_memory.then(|| {
            Check::warn(
                NAME,
                NOT_KEPT,
                "set SNAPSHOT_PATH and SNAPSHOT_KEY, so that a restart loses nothing that was acknowledged",
            )
        });
    };
    let advice = "set SNAPSHOT_PATH to a folder that this user may write";
    let secret = match Secret::parse(snapshots.key.expose_secret()) {
        Ok(secret) => secret,
        Err(problem) => return Some(Check::fail(NAME, problem, "set another SNAPSHOT_KEY")),
    };
    let opened = Folder::open(&snapshots.path, prefix, secret, None, snapshots.keep);
    Some(match opened {
        Ok(folder) => Check::pass(NAME, format!("{} can be written", folder.path().display())),
        // That is how it is while the worker runs.
        Err(error @ OpenError::Held { .. }) => Check::pass(NAME, error.to_string()),
        Err(error @ OpenError::Io { .. }) => Check::fail(NAME, error.to_string(), advice),
    })
}
