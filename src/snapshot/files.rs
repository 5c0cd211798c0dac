//! The names of the files in a folder. They sort by number; the clock has no part in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Snapshot,
    Journal,
}

/// The folder of `SNAPSHOT_PATH`, and what the names of our files begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    pub folder: PathBuf,
    name: String,
}

/// No file of ours has a larger number, at a thousand files a second for thousands of years.
pub const MAX_NUMBER: u64 = 1_000_000_000_000_000;
const DEFAULT_NAME: &str = "entitlement-sync";
const TEMPORARY: &str = ".tmp";
const DAMAGED: &str = ".damaged";

impl Base {
    /// Reads a path that names a folder, or a file whose name without its extension begins the names of ours.
    pub fn of(path: &Path) -> Self {
        let ends_in_slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        let is_folder =
            path.is_dir() || !path.is_file() && (ends_in_slash || path.extension().is_none());
        let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
        match path.file_stem().filter(|_| !is_folder) {
            Some(name) => Self {
                folder: parent.unwrap_or(Path::new(".")).to_owned(),
                name: name.to_string_lossy().into_owned(),
            },
            None => Self {
                folder: path.to_owned(),
                name: DEFAULT_NAME.to_owned(),
            },
        }
    }

    pub fn lock(&self) -> PathBuf {
        self.folder.join(format!("{}.lock", self.name))
    }

    pub fn file(&self, role: Role, number: u64) -> PathBuf {
        let role = match role {
            Role::Snapshot => "snapshot",
            Role::Journal => "journal",
        };
        self.folder
            .join(format!("{}-{number:010}.{role}", self.name))
    }

    /// Reads a name; `None` if it is not one of ours.
    fn read(&self, name: &str) -> Option<Found> {
        let rest = name.strip_prefix(&self.name)?.strip_prefix('-')?;
        let (number, rest) = rest.split_once('.')?;
        let is_number = number.len() >= 10 && number.bytes().all(|it| it.is_ascii_digit());
        let number = number
            .parse()
            .ok()
            .filter(|it| *it <= MAX_NUMBER && is_number)?;
        let (role, state) = match rest.strip_prefix("snapshot") {
            Some(state) => (Role::Snapshot, state),
            None => (Role::Journal, rest.strip_prefix("journal")?),
        };
        let state = match state {
            "" => State::Ready,
            TEMPORARY => State::Temporary,
            state if state.starts_with(DAMAGED) => State::Damaged,
            _ => return None,
        };
        Some(Found {
            role,
            number,
            state,
            path: self.folder.join(name),
        })
    }

    /// Returns our files, by number.
    pub fn list(&self) -> io::Result<Vec<Found>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Some(file) = entry.file_name().to_str().and_then(|name| self.read(name))
            {
                found.push(file);
            }
        }
        found.sort_by_key(|file| file.number);
        Ok(found)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Ready,
    /// An interrupted write.
    Temporary,
    Damaged,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub role: Role,
    pub number: u64,
    pub state: State,
    pub path: PathBuf,
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

pub fn temporary(path: &Path) -> PathBuf {
    with_ending(path, TEMPORARY)
}

/// Returns a name for a damaged file that no other file has.
pub fn damaged(path: &Path) -> PathBuf {
    let first = with_ending(path, DAMAGED);
    let mut others = (2..).map(|count| with_ending(path, &format!("{DAMAGED}.{count}")));
    if !first.exists() {
        return first;
    }
    others.find(|path| !path.exists()).unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(path: &str) -> (String, String) {
        let base = Base::of(Path::new(path));
        (base.folder.display().to_string(), base.name)
    }

    #[test]
    fn a_path_is_a_folder_or_begins_the_names_of_files() {
        let folder = tempfile::tempdir().unwrap();
        let inside = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(inside("with.dot")).unwrap();
        fs::write(inside("plain"), "").unwrap();
        let default = || DEFAULT_NAME.to_owned();
        for name in ["new", "new/", "with.dot", "new.folder/"] {
            assert_eq!(base(&inside(name)), (inside(name), default()), "{name}");
        }
        let parent = folder.path().display().to_string();
        assert_eq!(base(&inside("plain")), (parent.clone(), "plain".into()));
        assert_eq!(base(&inside("dump.bin")), (parent, "dump".into()));
        assert_eq!(base("dump.bin"), (".".into(), "dump".into()));
    }

    #[test]
    fn only_names_of_ours_are_read() {
        let base = Base {
            folder: "/f".into(),
            name: "b".into(),
        };
        for role in [Role::Snapshot, Role::Journal] {
            for number in [1, 9_999_999_999, 10_000_000_000, MAX_NUMBER] {
                let path = base.file(role, number);
                let name = path.file_name().unwrap().to_str().unwrap();
                let read = |name: &str| base.read(name).map(|it| (it.role, it.number, it.state));
                assert_eq!(read(name), Some((role, number, State::Ready)));
                let name_of =
                    |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
                let written = name_of(temporary(&path));
                assert_eq!(read(&written), Some((role, number, State::Temporary)));
                let renamed = name_of(damaged(&path));
                assert_eq!(read(&renamed), Some((role, number, State::Damaged)));
            }
        }
        for other in [
            "b-1.snapshot",
            "b-0000000001.snapshots",
            "b-+000000001.snapshot",
            "b-1000000000000001.journal",
            "b-99999999999999999999.journal",
            "bb-0000000001.snapshot",
            "c-0000000001.journal",
            "b.lock",
        ] {
            assert_eq!(base.read(other), None, "{other}");
        }
    }
}
