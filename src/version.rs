//! What was built, and which Redis layout it writes.

/// The Redis layout that is written: the one of SDK 2.x and 3.x, which 4.x reads too.
pub const DATA_LAYOUT: &str = "sdk-3";

/// The commit that was built, where the build was told.
pub const REVISION: &str = match option_env!("REVISION") {
    Some(revision) if !revision.is_empty() => revision,
    _ => "unknown",
};
