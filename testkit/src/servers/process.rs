//! A child process that dies with the value that stands for it.

use std::fs::{self, OpenOptions};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

pub struct Process {
    child: Mutex<Child>,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with no input, and both outputs appended to the file `log`.
    pub fn spawn(command: &mut Command, log: &Path) -> Process {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let stderr = out.try_clone().unwrap().into();
        Process::spawn_with(command, log, out.into(), stderr)
    }

    /// The same, with outputs of its own; what does not go to `log` is in no log.
    pub fn spawn_with(command: &mut Command, log: &Path, stdout: Stdio, stderr: Stdio) -> Process {
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {:?}: {error}", command.get_program()));
        Process {
            pid: child.id(),
            child: Mutex::new(child),
            log: log.to_path_buf(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn logs(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last `count` lines of the log.
    pub fn tail(&self, count: usize) -> String {
        let logs = self.logs();
        let lines: Vec<&str> = logs.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }

    /// The exit code, once there is one; 128 plus the signal for a process that a signal ended, as in a shell.
    pub fn exit_code(&self) -> Option<i32> {
        let status = self.child().try_wait().unwrap()?;
        Some(
            status
                .code()
                .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()),
        )
    }

    pub fn signal(&self, signal: Signal) {
        // Under the lock, and only while it is not reaped: its pid may be someone else's afterwards.
        let mut child = self.child();
        if child.try_wait().unwrap().is_none() {
            signal::kill(Pid::from_raw(self.pid.cast_signed()), signal).unwrap();
        }
    }

    /// SIGKILL, and waits until it is gone. Works on a frozen process too.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
