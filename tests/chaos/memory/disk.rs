//! The disk of the snapshot folder: a small one of its own where this user may mount one.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

pub struct Disk {
    parent: TempDir,
    pub is_mounted: bool,
}

impl Disk {
    pub fn new() -> Disk {
        let parent = TempDir::new().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=32m", "none"])
            .arg(parent.path())
            .output();
        let is_mounted = mount.is_ok_and(|done| done.status.success());
        Disk { parent, is_mounted }
    }

    /// The folder of the snapshots.
    pub fn folder(&self) -> PathBuf {
        self.parent.path().join("state")
    }

    fn aside(&self) -> PathBuf {
        self.parent.path().join("aside")
    }

    fn ballast(&self) -> PathBuf {
        self.parent.path().join("ballast")
    }

    /// Not a byte is left.
    pub fn fill(&self) {
        let mut ballast = fs::File::create(self.ballast()).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            let bytes = vec![1; size];
            while ballast.write_all(&bytes).is_ok() {}
        }
    }

    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    pub fn take_away(&self) {
        fs::rename(self.folder(), self.aside()).unwrap();
    }

    pub fn bring_back(&self) {
        fs::rename(self.aside(), self.folder()).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted {
            let mut umount = Command::new("umount");
            let _ = umount.arg("-l").arg(self.parent.path()).status();
        }
    }
}
