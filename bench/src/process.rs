//! Processes: started, measured, and stopped by their ids.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// All running processes, which end with the bench.
static RUNNING: Mutex<Vec<u32>> = Mutex::new(Vec::new());

/// A process of ours. It is killed when this is dropped.
pub struct Process {
    child: Child,
    started: Instant,
    lines: Receiver<(Instant, String)>,
}

impl Process {
    /// With nothing of our environment but `PATH`. Its lines of stdout are read, stderr is shared.
    pub fn start(command: &mut Command, environment: &[(&str, String)]) -> Result<Self> {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let started = Instant::now();
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        running(|running| running.push(child.id()));
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send((Instant::now(), line)).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self {
            child,
            started,
            lines,
        })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn started(&self) -> Instant {
        self.started
    }

    pub fn stdin(&mut self) -> Result<&mut ChildStdin> {
        self.child.stdin.as_mut().context("no stdin")
    }

    /// The next line of stdout, and when it came.
    pub fn line(&self) -> Result<(Instant, String)> {
        let line = self.lines.recv_timeout(Duration::from_secs(30));
        line.context("a process has said nothing for 30 s, or has ended")
    }

    /// The lines of stdout so far.
    pub fn lines(&self) -> impl Iterator<Item = (Instant, String)> + '_ {
        self.lines.try_iter()
    }

    pub fn usage(&self) -> Result<Usage> {
        usage(self.child.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is no failure.
        let _ = self.child.kill();
        let _ = self.child.wait();
        running(|running| running.retain(|id| *id != self.child.id()));
    }
}

fn running(change: impl FnOnce(&mut Vec<u32>)) {
    change(
        &mut RUNNING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
}

/// Lets all threads of a process run on these cores only, for example `0` or `1-3`.
pub fn pin(id: u32, cores: &str) {
    taskset(&["-a", "-cp", cores, &id.to_string()]);
}

/// Lets this thread run on these cores only.
pub fn pin_thread(cores: &str) {
    if let Some(id) = thread_id() {
        taskset(&["-cp", cores, &id]);
    }
}

/// Lets no ordinary process interrupt this one, or all again. Only root may do that; else nothing changes.
pub fn set_uninterrupted(id: u32, is_uninterrupted: bool) {
    match is_uninterrupted {
        true => chrt(&["--all-tasks", "--fifo", "--pid", "1", &id.to_string()]),
        false => chrt(&["--all-tasks", "--other", "--pid", "0", &id.to_string()]),
    }
}

/// Lets this thread interrupt even those processes.
pub fn put_thread_first() {
    if let Some(id) = thread_id() {
        chrt(&["--fifo", "--pid", "2", &id]);
    }
}

fn thread_id() -> Option<String> {
    let thread = fs::read_link("/proc/thread-self").ok()?;
    Some(thread.file_name()?.to_string_lossy().into_owned())
}

fn chrt(arguments: &[&str]) {
    let _ = Command::new("chrt")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Without taskset everything runs where it likes.
fn taskset(arguments: &[&str]) {
    let _ = Command::new("taskset")
        .args(arguments)
        .stdout(Stdio::null())
        .status();
}

/// Kills whatever still runs.
pub fn kill_all() {
    running(|running| {
        for id in running.drain(..) {
            let _ = Command::new("kill")
                .args(["-KILL", &id.to_string()])
                .status();
        }
    });
}

/// What a process has used so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// User and system.
    pub cpu: Duration,
    pub rss_kib: u64,
    pub peak_rss_kib: u64,
}

impl Usage {
    pub fn of_self() -> Result<Self> {
        usage(std::process::id())
    }
}

fn usage(id: u32) -> Result<Usage> {
    /// `sysconf(_SC_CLK_TCK)` is 100 on every Linux that is in use.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let fields: Vec<&str> = match stat.rsplit_once(") ") {
        Some((_, fields)) => fields.split(' ').collect(),
        None => bail!("/proc/{id}/stat is not understood"),
    };
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<u32>().ok())
            .context("/proc/<id>/stat is too short")
    };
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let kib = |name: &str| {
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .nth(1)?
                    .parse()
                    .ok()
            })
            .with_context(|| format!("/proc/{id}/status has no {name}: the process has ended"))
    };
    Ok(Usage {
        cpu: TICK * (ticks(11)? + ticks(12)?),
        rss_kib: kib("VmRSS")?,
        peak_rss_kib: kib("VmHWM")?,
    })
}

/// A port that has no listener right now.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// When `/readyz` answered 200.
pub fn ready(port: u16) -> Result<Instant> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if ask(port).is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200")) {
            return Ok(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    bail!("/readyz on port {port} did not turn to 200 within 20 s")
}

fn ask(port: u16) -> Result<[u8; 12]> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).context("no answer")?;
    Ok(answer)
}
