//! A wall clock that a test moves while processes read it. Time that is measured between two moments goes on as ever.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use tempfile::TempDir;

use super::repo;

pub struct Clock {
    folder: TempDir,
    /// How far it is ahead, as the library maps it.
    seconds: File,
}

impl Clock {
    /// Compiles the library that stands in front of the C library, and begins with the right time.
    pub fn new() -> Clock {
        let folder = TempDir::new().unwrap();
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("clock.so"))
            .arg(repo("testkit/src/servers/clock.c"))
            .status();
        assert!(compiled.unwrap().success(), "cc cannot compile clock.c");
        let seconds = File::create(folder.path().join("seconds")).unwrap();
        let clock = Clock { folder, seconds };
        clock.set_ahead(0);
        clock
    }

    /// What a process needs to read this clock.
    pub fn env(&self) -> [(&'static str, String); 2] {
        let path = |name| self.folder.path().join(name).display().to_string();
        [
            ("LD_PRELOAD", path("clock.so")),
            ("CLOCK_FILE", path("seconds")),
        ]
    }

    /// Moves it, at once, to so many seconds after the machine's; before it, if negative.
    pub fn set_ahead(&self, seconds: i64) {
        self.seconds
            .write_all_at(&seconds.to_ne_bytes(), 0)
            .unwrap();
    }
}
