//! Writes snapshots: at the end, on SIGUSR1, by time, on request, and before the journal grows too large.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use secrecy::ExposeSecret;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::config::SnapshotConfig;
use crate::memory::{Entry, Memory, bytes_of};
use crate::metrics::SnapshotMetrics;
use crate::reads::Reads;
use crate::snapshot::{Folder, OpenError, RestoreError, Secret, Writer};
use crate::store::Store;

/// The state that a snapshot holds.
#[derive(Clone)]
pub enum Source {
    /// The state in this process. The store knows whether it is true now.
    Memory(Arc<Memory>, Box<Store>),
    /// The copies that the read API has of Redis and of the Edge API.
    Copies(Box<Reads>),
}

impl Source {
    /// Counts the changes since the start.
    fn changes(&self) -> u64 {
        match self {
            Self::Memory(memory, _) => memory.changes(),
            Self::Copies(reads) => reads.loads(),
        }
    }

    /// Returns whether a snapshot would hold nothing.
    fn is_empty(&self) -> bool {
        match self {
            Self::Copies(reads) => reads.owners() == 0,
            Self::Memory(memory, _) => {
                memory.owners() == 0 && memory.letters().all().next().is_none()
            }
        }
    }

    /// Passes all records to `put`, and for the last snapshot a record that says so; returns whether there was any state.
    fn put_all(
        &self,
        is_last: bool,
        mut put: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut is_any = false;
        match self {
            Self::Copies(reads) => reads.entries(|entry| {
                is_any = true;
                put(&serde_json::to_vec(entry)?)
            })?,
            Self::Memory(memory, store) => {
                let known_at = store.known_at();
                memory.entries(|entry| {
                    is_any |= !matches!(entry, Entry::Floors { .. });
                    put(&bytes_of(entry))
                })?;
                if known_at > 0 {
                    put(&bytes_of(&Entry::Proven { at: known_at }))?;
                }
                // The journal that says that this process began is not restored after this snapshot.
                let end = match is_last && store.is_settled() {
                    true => Entry::Ended,
                    false => Entry::Begun,
                };
                if is_last && matches!(end, Entry::Begun) {
                    tracing::info!("{NOT_SETTLED}");
                }
                put(&bytes_of(&end))?;
            }
        }
        Ok(is_any)
    }
}

/// Asks for snapshots. Clones ask the same task, which ends with the last of them.
#[derive(Clone)]
pub struct Saver {
    asks: mpsc::Sender<Ask>,
}

struct Ask {
    why: &'static str,
    answer: oneshot::Sender<Result<Saved, String>>,
}

/// A snapshot that was written.
#[derive(Debug, Clone)]
pub struct Saved {
    /// Its file name.
    pub name: String,
    pub records: u64,
    pub bytes: u64,
}

const AT_END: &str = "shutdown";
const NOT_SETTLED: &str = "messages may be in flight to this process: after the restart answers are marked as stale for the visibility timeout of the queue";
/// The bytes of the journal beyond which a snapshot is written, so that a restart takes seconds.
const MAX_JOURNAL_BYTES: u64 = 256 << 20;
/// The same for the number of its files: each start begins one, and a snapshot is the only thing that ends them.
const MAX_JOURNALS: usize = 16;
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Added to the niceness of the thread that writes a snapshot.
const NICENESS: i32 = 10;
/// The pause after a snapshot that could not be written.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// Returns whether an error concerns the folder or its key, and a restart does not correct it.
pub fn is_configuration(error: &anyhow::Error) -> bool {
    let is_of_open = error.downcast_ref().map(OpenError::is_configuration);
    let is_of_restore = error.downcast_ref().map(RestoreError::is_configuration);
    is_of_open.or(is_of_restore).unwrap_or(false)
}

/// Locks the folder and restores its state. Returns also whether nothing of it is known to be missing.
pub fn begin(
    config: &SnapshotConfig,
    prefix: &str,
    take: impl FnMut(&[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<(Folder, bool)> {
    let started = Instant::now();
    let secret = |text: &str| Secret::parse(text).map_err(anyhow::Error::msg);
    let key = secret(config.key.expose_secret()).context("SNAPSHOT_KEY")?;
    let previous = config.previous_key.as_ref();
    let previous = previous
        .map(|key| secret(key.expose_secret()).context("SNAPSHOT_KEY_PREVIOUS"))
        .transpose()?;
    let folder = Folder::open(&config.path, prefix, key, previous, config.keep)?;
    let restored = folder.restore(take)?;
    tracing::info!(
        folder = %folder.path().display(),
        snapshot_records = restored.snapshot.as_ref().map(|it| it.records),
        journal_records = restored.journal_records,
        damaged_files = restored.damaged.len(),
        took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "state restored"
    );
    if !restored.is_whole {
        tracing::error!(
            "files in SNAPSHOT_PATH are damaged, and no other file replaces them: changes are missing from what was restored"
        );
    }
    Ok((folder, restored.is_whole))
}

impl Saver {
    /// Starts the task that writes snapshots.
    pub fn start(
        folder: Folder,
        source: Source,
        interval: Option<Duration>,
        metrics: SnapshotMetrics,
    ) -> io::Result<Self> {
        let (asks, asked) = mpsc::channel(1);
        let sigusr1 = signal(SignalKind::user_defined1())?;
        let task = Task {
            folder: Arc::new(folder),
            source,
            metrics,
            saved_changes: 0,
            retry_at: None,
        };
        tokio::spawn(task.run(asked, sigusr1, interval));
        Ok(Self { asks })
    }

    /// Writes the last snapshot, after the drain. A failure is logged; the journal holds the state all the same.
    pub async fn save_last(&self) {
        let _ = self.save(AT_END).await;
    }

    /// Writes a snapshot now.
    pub async fn save(&self, why: &'static str) -> Result<Saved, String> {
        const STOPPED: &str = "the task that writes snapshots has stopped";
        let (answer, answered) = oneshot::channel();
        let sent = self.asks.send(Ask { why, answer }).await;
        sent.map_err(|_| STOPPED.to_owned())?;
        answered.await.unwrap_or_else(|_| Err(STOPPED.to_owned()))
    }
}

struct Task {
    folder: Arc<Folder>,
    source: Source,
    metrics: SnapshotMetrics,
    /// The changes that the last snapshot holds.
    saved_changes: u64,
    retry_at: Option<Instant>,
}

impl Task {
    async fn run(
        mut self,
        mut asked: mpsc::Receiver<Ask>,
        mut sigusr1: tokio::signal::unix::Signal,
        interval: Option<Duration>,
    ) {
        let mut checks = tokio::time::interval(CHECK_INTERVAL);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = interval.map(|interval| Instant::now() + interval);
        loop {
            let why = tokio::select! {
                ask = asked.recv() => match ask {
                    None => return,
                    Some(Ask { why, answer }) => {
                        // A caller that no longer waits needs no answer.
                        let _ = answer.send(self.save(why).await);
                        continue;
                    }
                },
                Some(()) = sigusr1.recv() => "SIGUSR1",
                _ = checks.tick() => {
                    self.metrics.journal_bytes.set(gauge(self.folder.journal().bytes()));
                    let is_due = due.is_some_and(|due| due <= Instant::now());
                    if let Some(why) = self.urgent() {
                        why
                    } else if is_due {
                        due = interval.map(|interval| Instant::now() + interval);
                        if self.source.changes() == self.saved_changes {
                            continue;
                        }
                        "SNAPSHOT_INTERVAL_SECS"
                    } else {
                        continue;
                    }
                }
            };
            // It is logged and counted.
            let _ = self.save(why).await;
        }
    }

    /// Returns why a snapshot is needed now, if it is.
    fn urgent(&self) -> Option<&'static str> {
        if self.retry_at.is_some_and(|at| at > Instant::now()) {
            return None;
        }
        let is_large = self.folder.journal().bytes() > MAX_JOURNAL_BYTES;
        let is_many = || self.folder.journals() > MAX_JOURNALS && !self.source.is_empty();
        if self.folder.needs_snapshot() {
            Some("a journal was removed")
        } else if is_large {
            Some("the size of the journal")
        } else if is_many() {
            Some("the number of journals")
        } else {
            None
        }
    }

    async fn save(&mut self, why: &'static str) -> Result<Saved, String> {
        let changes = self.source.changes();
        let (folder, source) = (self.folder.clone(), self.source.clone());
        let started = Instant::now();
        let is_last = why == AT_END;
        // After the last snapshot nobody waits for an answer.
        let niceness = if is_last { 0 } else { NICENESS };
        let written = on_own_thread(niceness, move || write(&folder, &source, is_last));
        let written = written.await;
        match written {
            Ok(saved) => {
                self.saved_changes = changes;
                self.retry_at = None;
                self.metrics.saved(started.elapsed(), saved.bytes);
                tracing::info!(
                    why,
                    file = saved.name,
                    records = saved.records,
                    bytes = saved.bytes,
                    took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "snapshot written"
                );
                Ok(saved)
            }
            Err(error) => {
                self.retry_at = Some(Instant::now() + RETRY_PAUSE);
                self.metrics.failed.inc();
                tracing::error!(why, %error, "cannot write a snapshot; the older snapshots stay");
                Err(error.to_string())
            }
        }
    }
}

fn write(folder: &Folder, source: &Source, is_last: bool) -> io::Result<Saved> {
    let covers = folder.rotate();
    let mut writer: Writer = folder.snapshot(covers)?;
    if !source.put_all(is_last, |record| writer.put(record))? {
        return Err(io::Error::other("there is nothing to write"));
    }
    let written = writer.finish()?;
    let written = written.ok_or_else(|| io::Error::other("there is nothing to write"))?;
    Ok(Saved {
        name: file_name(&written.path),
        records: written.records,
        bytes: written.bytes,
    })
}

/// Runs `work` on a thread of its own, which ends with it: only root may raise its priority again. `niceness` is added to
/// that of the process, so that the threads that answer questions go first where both need the processor.
async fn on_own_thread<T: Send + 'static>(
    niceness: i32,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new().name("snapshot".into());
    thread.spawn(move || {
        // Only Linux has a priority for each thread; elsewhere this call is about the process. If it is refused, the
        // work is done all the same.
        if cfg!(target_os = "linux") {
            let _ = rustix::process::nice(niceness);
        }
        // The caller may be gone.
        let _ = answer.send(work());
    })?;
    let panicked = |_| io::Error::other("the writer panicked");
    answered.await.map_err(panicked)?
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn a_snapshot_gives_way_to_answers_and_slows_no_other_thread() {
        // Returns the niceness of the thread that asks.
        let niceness = || Ok(rustix::process::nice(0)?);
        let before = niceness().unwrap();
        let during = on_own_thread(NICENESS, niceness).await.unwrap();
        assert_eq!(during, (before + NICENESS).min(19));
        assert_eq!(niceness().unwrap(), before);
        assert_eq!(on_own_thread(0, niceness).await.unwrap(), before);
    }
}
