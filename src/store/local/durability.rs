//! Makes changes durable before their messages are acknowledged.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::snapshot::Journal;
use crate::store::StoreError;
use crate::store::monitor::Gate;

/// Waits until what was applied is durable. Without a journal, it is at once. Clones share one thread.
#[derive(Debug, Clone, Default)]
pub struct Durability {
    waiting: Option<Sender<oneshot::Sender<()>>>,
}

/// Between two tries to write the journal.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

impl Durability {
    /// Starts a thread that syncs the journal for all who wait. While it cannot be written, the gate is closed.
    pub(super) fn start(journal: Arc<Journal>, gate: Gate) -> Self {
        let (waiting, asked) = channel();
        std::thread::spawn(move || sync_for_all(&journal, &gate, &asked));
        Self {
            waiting: Some(waiting),
        }
    }

    /// Returns whether acknowledgements do not wait: there is no journal.
    pub fn is_immediate(&self) -> bool {
        self.waiting.is_none()
    }

    /// Returns once everything applied before is durable, however long that takes.
    pub async fn durable(&self) {
        let Some(waiting) = &self.waiting else {
            return;
        };
        let (done, is_done) = oneshot::channel();
        let is_asked = waiting.send(done).is_ok();
        if !is_asked || is_done.await.is_err() {
            // The thread ended by a panic: nothing is acknowledged any more.
            tracing::error!("the thread that writes the journal has stopped: restart the process");
            std::future::pending::<()>().await;
        }
    }
}

fn sync_for_all(journal: &Journal, gate: &Gate, asked: &Receiver<oneshot::Sender<()>>) {
    while let Ok(first) = asked.recv() {
        let mut waiting = vec![first];
        loop {
            waiting.extend(asked.try_iter());
            match journal.sync() {
                Ok(()) => break,
                Err(error) => {
                    gate.close(&StoreError::of_journal(&error), true);
                    std::thread::sleep(RETRY_PAUSE);
                }
            }
        }
        gate.open();
        for done in waiting {
            // Who no longer waits needs no answer.
            let _ = done.send(());
        }
    }
}
