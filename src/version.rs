//! The version of the build and of the Redis layout that it writes.

/// The Redis layout that the worker writes: the one of SDK 2.x and 3.x, which 4.x reads too.
pub const DATA_LAYOUT: &str = "sdk-3";

/// The commit of the build, if the build knows it.
pub const REVISION: &str = match option_env!("REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};
