//! Knows the folder of the start, and checks that it is still there and still ours.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::error::{OpenError, while_doing};
use super::files::{Base, State};
use super::lock::{self, Taken};

pub struct Place {
    pub base: Base,
    /// Open for as long as the process runs, so that no other folder can get the same identity.
    folder: File,
    lock: File,
}

impl Place {
    /// Creates the folder if it is missing, locks it, and removes the files of interrupted writes.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let base = Base::of(path);
        let failed = |error| OpenError::io(&base.folder, error);
        if !base.folder.is_dir() {
            create_folder(&base.folder).map_err(failed)?;
        }
        let folder = File::open(&base.folder).map_err(failed)?;
        let lock = match lock::take(&base.lock()).map_err(failed)? {
            Taken::Lock(lock) => lock,
            Taken::By(holder) => {
                let folder = base.folder;
                return Err(OpenError::Held { folder, holder });
            }
        };
        for left in base.list().map_err(failed)? {
            if left.state == State::Temporary {
                fs::remove_file(&left.path).map_err(|error| OpenError::io(&left.path, error))?;
            }
        }
        let place = Self { base, folder, lock };
        place.check().map_err(|error| OpenError::io(path, error))?;
        Ok(place)
    }

    /// Fails if the folder or the lock file is gone, or another one stands in its place.
    pub fn check(&self) -> io::Result<()> {
        let is_ours =
            is_same(&self.folder, &self.base.folder)? && is_same(&self.lock, &self.base.lock())?;
        if is_ours {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!(
                "{} was removed or replaced while this process ran: bring its disk back, or restart",
                self.base.folder.display()
            ),
        ))
    }

    /// Creates a file that no other user may read.
    pub fn create(&self, path: &Path) -> io::Result<File> {
        self.check()?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
    }

    /// Waits until the names in the folder are on disk.
    pub fn sync(&self) -> io::Result<()> {
        self.folder
            .sync_all()
            .map_err(|error| while_doing("sync the folder", &error))
    }
}

/// Creates a folder that no other user may read, and waits until its name is on disk.
fn create_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let parent = folder.parent().filter(|it| !it.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Returns whether a path still leads to an open file.
pub fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let (ours, there) = (file.metadata()?, fs::metadata(path));
    match there {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
