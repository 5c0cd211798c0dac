//! Writes log lines to standard error from a separate thread, so that a reader that stops
//! reading does not block the process. Lines that do not fit are dropped, counted and reported later.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, channel, sync_channel};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::fmt::MakeWriter;

use super::Redactor;

/// Maximum number of waiting lines.
const MAX_LINES: usize = 8192;
/// Maximum bytes of waiting lines.
const MAX_BYTES: usize = 4 << 20;

/// Passes lines to the thread. Clones share the thread.
#[derive(Clone)]
pub struct Lines {
    sender: SyncSender<Item>,
    waiting: Arc<Waiting>,
    dropped: Counter,
}

#[derive(Default)]
struct Waiting {
    lines: AtomicUsize,
    bytes: AtomicUsize,
}

impl Waiting {
    /// Reserves room for a line, if there is some.
    fn add(&self, bytes: usize) -> bool {
        let lines = self.lines.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = lines < MAX_LINES && before + bytes <= MAX_BYTES;
        if !fits {
            self.remove(bytes);
        }
        fits
    }

    fn remove(&self, bytes: usize) {
        self.lines.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn is_less_than_half(&self) -> bool {
        self.lines.load(Ordering::Relaxed) < MAX_LINES / 2
            && self.bytes.load(Ordering::Relaxed) < MAX_BYTES / 2
    }
}

enum Item {
    Line(Vec<u8>),
    /// A flush, which is answered once all earlier lines are written.
    Flush(SyncSender<()>),
}

impl Lines {
    /// Starts the thread, which writes redacted lines to `output`.
    pub fn start(redactor: Arc<Redactor>, output: impl Write + Send + 'static) -> io::Result<Self> {
        // A few more entries, for flushes.
        let (sender, items) = sync_channel(MAX_LINES + 8);
        let lines = Self {
            sender,
            waiting: Arc::default(),
            dropped: Counter::default(),
        };
        let writer = Writer {
            redactor,
            output,
            waiting: lines.waiting.clone(),
            dropped: lines.dropped.clone(),
        };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run(&items))?;
        Ok(lines)
    }

    /// Returns the number of lines dropped so far.
    pub fn dropped(&self) -> Counter {
        self.dropped.clone()
    }

    /// Waits until all lines so far are written, for at most `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let started = Instant::now();
        // During the first round the writer may add a report of dropped lines; the second round waits for it.
        for _ in 0..2 {
            let (sender, done) = sync_channel(1);
            let mut item = Item::Flush(sender);
            loop {
                match self.sender.try_send(item) {
                    Ok(()) => break,
                    Err(TrySendError::Full(again)) if started.elapsed() < timeout => {
                        item = again;
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(_) => return,
                }
            }
            let left = timeout.saturating_sub(started.elapsed());
            if done.recv_timeout(left).is_err() {
                return;
            }
        }
    }

    fn add(&self, line: &[u8]) {
        if !self.waiting.add(line.len()) {
            self.dropped.inc();
        } else if self.sender.try_send(Item::Line(line.to_vec())).is_err() {
            self.waiting.remove(line.len());
            self.dropped.inc();
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    /// The subscriber writes each line in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.add(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Writer<W> {
    redactor: Arc<Redactor>,
    output: W,
    waiting: Arc<Waiting>,
    dropped: Counter,
}

impl<W: Write> Writer<W> {
    /// Runs until the last [`Lines`] is gone.
    fn run(mut self, items: &Receiver<Item>) {
        let mut reported = 0;
        for item in items {
            match item {
                Item::Line(line) => {
                    let text = String::from_utf8_lossy(&line);
                    // A closed standard error does not stop the process, and there is no other place to report it.
                    let _ = self
                        .output
                        .write_all(self.redactor.redact(&text).as_bytes());
                    self.waiting.remove(line.len());
                    reported = self.report(reported);
                }
                Item::Flush(done) => {
                    reported = self.report(reported);
                    let _ = self.output.flush();
                    let _ = done.send(());
                }
            }
        }
    }

    /// Reports the number of lines dropped since the start, once there is room for a line.
    fn report(&self, reported: u64) -> u64 {
        let dropped = self.dropped.get();
        if dropped == reported || !self.waiting.is_less_than_half() {
            return reported;
        }
        tracing::warn!(
            dropped,
            "log lines were dropped because standard error was not read in time"
        );
        dropped
    }
}

/// Writes a text to standard error and waits for at most a second: the pipe may be full.
pub fn print(text: impl Into<String>) {
    let (sender, done) = channel();
    let text = text.into();
    let thread = std::thread::Builder::new().name("print".into());
    let spawned = thread.spawn(move || {
        let _ = writeln!(io::stderr(), "{text}");
        let _ = sender.send(());
    });
    if spawned.is_ok() {
        let _ = done.recv_timeout(Duration::from_secs(1));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    use super::*;
    use crate::metrics::Metrics;

    /// Takes nothing until it is released.
    struct Stuck {
        go: Receiver<()>,
        gone: bool,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if !self.gone {
                self.gone = self.go.recv().is_ok();
            }
            if bytes.windows(7).any(|part| part == b"dropped") {
                // A reader that is slow to take the report of dropped lines.
                std::thread::sleep(Duration::from_millis(200));
            }
            self.taken.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn stuck() -> (Lines, Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (sender, go) = channel();
        let taken = Arc::new(Mutex::new(Vec::new()));
        let output = Stuck {
            go,
            gone: false,
            taken: taken.clone(),
        };
        let redactor = Redactor::new(&["hunter2-canary".into()]).unwrap();
        (
            Lines::start(Arc::new(redactor), output).unwrap(),
            sender,
            taken,
        )
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_the_rest_is_written_redacted_and_in_order() {
        let (mut lines, go, taken) = stuck();
        for number in 0..3 * MAX_LINES {
            let line = format!("{number} hunter2-canary\n");
            lines.write_all(line.as_bytes()).unwrap();
        }
        // Nothing waits for what is stuck.
        lines.flush(Duration::from_millis(10));
        let (metrics, _) = Metrics::beside(lines.dropped());
        let dropped = metrics.log_lines_dropped.get();
        assert!(dropped >= 2 * MAX_LINES as u64 - 1, "{dropped}");
        go.send(()).unwrap();
        lines.flush(Duration::from_secs(60));
        let taken = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        assert!(taken.starts_with("0 [REDACTED]\n1 [REDACTED]\n"));
        let written = taken.lines().count() as u64;
        assert_eq!(written + dropped, 3 * MAX_LINES as u64);
    }

    /// The report lies behind the flush in the queue, so the process would end before the report is written.
    #[test]
    fn a_flush_waits_for_the_report_of_what_was_dropped() {
        let (mut lines, go, taken) = stuck();
        let log = tracing_subscriber::fmt().with_writer(lines.clone());
        // Each test is a process of its own.
        log.init();
        for _ in 0..MAX_LINES + 10 {
            lines.write_all(b"line\n").unwrap();
        }
        let dropped = lines.dropped().get();
        let flushing = std::thread::spawn(move || lines.flush(Duration::from_secs(60)));
        go.send(()).unwrap();
        flushing.join().unwrap();
        let taken = String::from_utf8(taken.lock().unwrap().clone()).unwrap();
        let mut reports = taken.lines().filter(|line| line.contains("dropped"));
        let report = reports.next_back().unwrap_or_default();
        assert!(report.contains(&format!("{dropped}")), "{report}");
    }

    #[test]
    fn what_waits_is_bounded_by_its_bytes_too() {
        let (mut lines, go, _) = stuck();
        let line = vec![b'x'; MAX_BYTES / 4];
        for _ in 0..20 {
            lines.write_all(&line).unwrap();
        }
        let dropped = lines.dropped().get();
        assert!((15..=16).contains(&dropped), "{dropped}");
        // One that is larger than everything is no exception.
        lines.write_all(&vec![b'x'; 2 * MAX_BYTES]).unwrap();
        assert_eq!(lines.dropped().get(), dropped + 1);
        go.send(()).unwrap();
    }
}
