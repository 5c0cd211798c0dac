//! Defines the errors of a folder, each with the action that it needs.

use std::io;
use std::path::PathBuf;

use super::header::VERSION;

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the snapshots in {} are in use by {holder}: only one process may use a folder; stop that one, \
         or set another SNAPSHOT_PATH",
        .folder.display()
    )]
    Held { folder: PathBuf, holder: String },
    #[error("cannot use {} for snapshots: {error}; check SNAPSHOT_PATH, its permissions and its disk", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl OpenError {
    pub(super) fn io(path: impl Into<PathBuf>, error: io::Error) -> Self {
        let path = path.into();
        Self::Io { path, error }
    }

    /// Returns whether another setting is needed, so that a restart alone does not help.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Held { .. } => true,
            Self::Io { error, .. } => is_lasting(error),
        }
    }
}

/// Returns whether a file system will answer the same after a restart. A disk may be full or absent for a while only,
/// and a process may have too many files open.
fn is_lasting(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::Unsupported
    )
}

/// Nothing, or not everything, was restored, and to continue could destroy the existing files.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(
        "{} was written with another key: set SNAPSHOT_KEY, or SNAPSHOT_KEY_PREVIOUS, to that key; or move \
         the file away to start without it",
        .file.display()
    )]
    Key { file: PathBuf },
    #[error(
        "{} belongs to the prefix \"{found}\", and ENVIRONMENT_PREFIX is \"{ours}\": set one folder for \
         each prefix in SNAPSHOT_PATH",
        .file.display()
    )]
    Prefix {
        file: PathBuf,
        found: String,
        ours: String,
    },
    #[error(
        "{} has format version {version}, and this program reads version {VERSION}: run the version that \
         wrote it, or a newer one; or move the file away to start without it",
        .file.display()
    )]
    Newer { file: PathBuf, version: u16 },
    #[error("cannot restore from {}: {error:#}", .file.display())]
    Refused { file: PathBuf, error: anyhow::Error },
    #[error("cannot read {}: {error}; check its permissions and its disk", .file.display())]
    Io { file: PathBuf, error: io::Error },
}

impl RestoreError {
    pub(super) fn io(file: impl Into<PathBuf>, error: io::Error) -> Self {
        let file = file.into();
        Self::Io { file, error }
    }

    /// Returns whether another setting is needed, so that a restart alone does not help.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Key { .. } | Self::Prefix { .. } | Self::Newer { .. } | Self::Refused { .. } => {
                true
            }
            Self::Io { error, .. } => is_lasting(error),
        }
    }
}

/// Adds the action that failed to an error; keeps its kind.
pub(super) fn while_doing(what: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_may_help_where_the_system_may_answer_otherwise() {
        let of_kind = |kind: io::ErrorKind| io::Error::from(kind);
        // Too many open files, an error of the device, a full disk.
        let of_system = [24, 5, 28].map(io::Error::from_raw_os_error);
        for error in of_system {
            let text = error.to_string();
            assert!(!RestoreError::io("f", error).is_configuration(), "{text}");
        }
        for kind in [
            io::ErrorKind::PermissionDenied,
            io::ErrorKind::NotADirectory,
        ] {
            assert!(RestoreError::io("f", of_kind(kind)).is_configuration());
            assert!(OpenError::io("f", of_kind(kind)).is_configuration());
        }
        assert!(!OpenError::io("f", of_kind(io::ErrorKind::StorageFull)).is_configuration());
    }
}
