//! Takes an exclusive lock on the folder, and names its holder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const MAX_NOTE_BYTES: u64 = 300;

pub enum Taken {
    Lock(File),
    /// Another process holds it; this is what it wrote about itself.
    By(String),
}

/// Takes the lock, which ends with the process, however it ends.
pub fn take(path: &Path) -> io::Result<Taken> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Taken::By(holder(&mut file))),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The note is for people. A full disk must not keep the worker from its state.
    let note = format!("process {} on {}\n", std::process::id(), host());
    let _ = file
        .set_len(0)
        .and_then(|()| file.write_all(note.as_bytes()));
    Ok(Taken::Lock(file))
}

fn holder(file: &mut File) -> String {
    let mut note = Vec::new();
    let _ = file.take(MAX_NOTE_BYTES).read_to_end(&mut note);
    let note = String::from_utf8_lossy(&note);
    let shown: String = note.chars().filter(|it| !it.is_control()).collect();
    match shown.trim() {
        "" => "another process".to_owned(),
        shown => shown.to_owned(),
    }
}

/// Returns the name of this machine; of a container, its id.
fn host() -> String {
    ["/proc/sys/kernel/hostname", "/etc/hostname"]
        .iter()
        .find_map(|path| std::fs::read_to_string(path).ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "a host without a name".to_owned())
}
