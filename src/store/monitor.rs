//! Probes Redis twice a second, and holds the gate that stops receiving while Redis takes no writes.

mod log;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fred::prelude::*;
use tokio::sync::broadcast::Receiver;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::StoreError;
use super::primary::Primary;
use super::replicas::{PROBE, Replicas};
use super::script::Script;
use super::write::Writer;
use crate::health::Health;
use crate::keys::{Keys, Owner};
use crate::metrics::Metrics;
use crate::plan::{Action, Condition, Item, Step};
use log::Role;

/// Open while Redis takes writes. Consumers receive only while it is open: messages that stay in the queue
/// lose no delivery.
#[derive(Clone)]
pub struct Gate {
    open: watch::Sender<bool>,
    /// It closed because Redis did not answer in time, not because of an error reply.
    silent: Arc<AtomicBool>,
    strikes: Arc<Mutex<Strikes>>,
    /// Wakes the monitor when a write fails.
    failed: Arc<Notify>,
    health: Arc<Health>,
    metrics: Metrics,
    role: Role,
}

/// Writes that failed right after a successful probe, for example because a permission on some keys is missing.
/// Each delays the next opening.
#[derive(Default)]
struct Strikes {
    opened: Option<Instant>,
    count: u32,
    hold_until: Option<Instant>,
}

impl Strikes {
    const EARLY_FAILURE_WINDOW: Duration = Duration::from_secs(2);
    const MAX_HOLD: Duration = Duration::from_secs(8);

    fn strike(&mut self) {
        let soon = self
            .opened
            .is_some_and(|opened| opened.elapsed() < Self::EARLY_FAILURE_WINDOW);
        self.count = if soon { self.count + 1 } else { 0 };
        let hold = match self.count {
            0 | 1 => Duration::ZERO,
            count => PROBE_INTERVAL
                .saturating_mul(1 << (count - 2).min(10))
                .min(Self::MAX_HOLD),
        };
        self.hold_until = Some(Instant::now() + hold);
    }

    fn is_over(&self) -> bool {
        self.hold_until.is_none_or(|until| until <= Instant::now())
    }
}

/// The probe interval. With a timeout of 1 s, an outage closes the gate within 1.5 s.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// The first pause after a failed write; each further pause is twice as long. A connection that one call broke
/// returns at once, and the gate reopens before it cuts short a receive in flight.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

impl Gate {
    /// Starts the monitor; it ends with the runtime.
    pub(super) fn start(probe: Probe, health: Arc<Health>, metrics: Metrics) -> Self {
        let role = match health.only_answers() {
            true => Role::Answering,
            false => Role::Consuming,
        };
        let gate = Self::closed_yet(role, health, metrics);
        tokio::spawn(monitor(gate.clone(), probe));
        gate
    }

    /// Returns the gate of a store in this process. It is open, and closes while the journal cannot be written.
    pub(super) fn of_journal(health: Arc<Health>, metrics: Metrics) -> Self {
        let gate = Self::closed_yet(Role::OwnStore, health, metrics);
        gate.open();
        gate
    }

    #[cfg(test)]
    pub(super) fn opened_for_good(health: Arc<Health>, metrics: Metrics) -> Self {
        let gate = Self::closed_yet(Role::Consuming, health, metrics);
        gate.open();
        gate
    }

    fn closed_yet(role: Role, health: Arc<Health>, metrics: Metrics) -> Self {
        Self {
            open: watch::Sender::new(false),
            silent: Arc::default(),
            strikes: Arc::default(),
            failed: Arc::default(),
            health,
            metrics,
            role,
        }
    }

    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Returns whether it last closed because Redis did not answer, which takes up to 1.5 s to notice.
    pub fn was_silence(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    /// Returns when the gate is open.
    pub async fn opened(&self) {
        // This gate owns the sender, so the channel is open.
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    /// Returns when the gate is closed.
    pub async fn closed(&self) {
        let _ = self.open.subscribe().wait_for(|open| !*open).await;
    }

    /// Closes the gate until a probe succeeds. An expected failure does not delay the next
    /// opening.
    pub(super) fn close(&self, error: &StoreError, is_expected: bool) {
        self.close_after(error, false, is_expected);
        self.failed.notify_one();
    }

    /// Returns whether the gate was open, in which case the error was logged.
    fn close_after(&self, error: &StoreError, silent: bool, is_expected: bool) -> bool {
        {
            // One lock for the whole change, so that opening and closing are atomic.
            let mut strikes = self.strikes.lock().unwrap_or_else(|lock| lock.into_inner());
            self.health.redis_down(&error.to_string());
            self.metrics.redis_up.set(0);
            if self.is_open() {
                self.silent.store(silent, Ordering::Relaxed);
            }
            if !self.open.send_replace(false) {
                return false;
            }
            if !is_expected {
                strikes.strike();
            }
        }
        log::closed(self.role, error);
        true
    }

    pub(super) fn open(&self) {
        {
            let mut strikes = self.strikes.lock().unwrap_or_else(|lock| lock.into_inner());
            if self.is_open() || !strikes.is_over() {
                return;
            }
            strikes.opened = Some(Instant::now());
            self.health.redis_up();
            self.metrics.redis_up.set(1);
            self.open.send_replace(true);
        }
        log::opened(self.role);
    }
}

async fn monitor(gate: Gate, mut probe: Probe) {
    let mut seen: Option<String> = None;
    let mut last_logged = String::new();
    let mut pause = PROBE_INTERVAL;
    loop {
        let asked = Instant::now();
        match probe.ask().await {
            Ok(found) => {
                if seen.as_ref().is_some_and(|seen| *seen != found) {
                    gate.metrics.redis_data_lost.inc();
                    log::lost_data(gate.role);
                }
                seen = Some(found);
                last_logged.clear();
                gate.open();
                pause = PROBE_INTERVAL;
            }
            Err(error) => {
                let error = probe.cause().unwrap_or(error);
                probe.primary.look_again();
                let news = !gate.close_after(&error, asked.elapsed() > PROBE_INTERVAL, false);
                let text = error.to_string();
                if text != last_logged {
                    // The first one was logged when the gate closed.
                    if news {
                        log::still_closed(&error);
                    }
                    last_logged = text;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = PROBE_INTERVAL.min(2 * pause),
            () = gate.failed.notified() => pause = FIRST_PAUSE,
        }
    }
}

/// Returns a step that uses keys like those of customers and changes nothing: it purges, at time 0, a customer that
/// never exists.
pub(super) fn harmless(keys: &Keys) -> Step {
    let no_customer = Owner {
        customer: "entitlement-sync-probe",
        resource: None,
    };
    Step {
        action: Action::Purge,
        at: 0,
        lock: keys.lock(no_customer),
        tombstone: keys.tombstone(no_customer),
        items: vec![Item {
            key: keys.entitlements(no_customer),
            at: 0,
            value: String::new(),
            condition: Condition::default(),
        }],
    }
}

/// Probes whether Redis takes writes, and keeps the last error of the connection: a wrong password, for example,
/// shows there and not on commands.
pub(super) struct Probe {
    primary: Primary,
    replicas: Replicas,
    writer: Writer,
    script: Script,
    marker: String,
    /// The step that the writer runs.
    harmless: Step,
    /// The last error of the current client's connection.
    client: String,
    errors: Option<Receiver<(Error, Option<Server>)>>,
    /// Probes in a row without an answer.
    silent: u32,
}

/// Probes in a row without an answer, after which the connection is replaced. By then every call on it has timed out.
const SILENT_PROBES: u32 = 2;

impl Probe {
    pub fn new(primary: Primary, replicas: Replicas, writer: Writer, keys: &Keys) -> Self {
        Self {
            primary,
            replicas,
            writer,
            script: Script::new(PROBE),
            marker: keys.marker(),
            harmless: harmless(keys),
            client: String::new(),
            errors: None,
            silent: 0,
        }
    }

    /// Reads and writes in one round trip, as the worker does: a replica, a full Redis, or one that
    /// denies a permission still answers PING. Returns the marker that was stored.
    async fn ask(&mut self) -> Result<String, StoreError> {
        let client = self.primary.client()?;
        if self.client != client.id() {
            client.id().clone_into(&mut self.client);
            self.errors = Some(client.error_rx());
        }
        let writing = self.replicas.watch(&client);
        // A new marker each time: a loss of data right after it was set would go unnoticed.
        let fresh = format!("{:032x}", fastrand::u128(..));
        // A late probe is harmless, so an outer timeout is safe here.
        let words = || {
            (
                vec![self.marker.as_str().into()],
                vec![fresh.as_str().into()],
            )
        };
        let asked = async {
            let found = self.script.run::<String>(&client, words);
            tokio::try_join!(found, self.writer.probe(&client, &self.harmless))
        };
        let Ok(asked) = timeout(PROBE_TIMEOUT, asked).await else {
            self.replace_if_silent(&client);
            return Err(StoreError::timeout());
        };
        self.silent = 0;
        let (found, ()) = asked?;
        timeout(PROBE_TIMEOUT, self.replicas.confirm(writing))
            .await
            .map_err(|_| StoreError::timeout())??;
        Ok(found)
    }

    /// Replaces a connection without answers, for example because a firewall dropped its state. fred does so by
    /// itself only if nothing is written for two seconds, and each probe writes.
    fn replace_if_silent(&mut self, client: &Client) {
        self.silent += 1;
        if self.silent >= SILENT_PROBES && client.is_connected() {
            self.silent = 0;
            let client = client.clone();
            // The call ends with the new connection, which may take as long as the outage.
            tokio::spawn(async move {
                if let Err(error) = client.force_reconnection().await {
                    tracing::debug!(%error, "cannot replace the connection to Redis");
                }
            });
        }
    }

    /// Returns why a probe failed: the failed lookup of the primary, or else the last error of the connection.
    fn cause(&mut self) -> Option<StoreError> {
        let last = self
            .errors
            .as_mut()
            .and_then(|errors| std::iter::from_fn(|| errors.try_recv().ok()).last());
        let of_connection = last.map(|(cause, _)| cause.into());
        self.primary.trouble().or(of_connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_right_after_an_opening_delay_the_next_one_and_expected_ones_do_not() {
        let metrics = Metrics::new().0;
        let gate = Gate::opened_for_good(Arc::default(), metrics);
        let fail = |is_expected| {
            gate.close(&StoreError::timeout(), is_expected);
            gate.open();
            gate.is_open()
        };
        assert!((0..9).all(|_| fail(true)), "expected");
        assert!(
            fail(false),
            "the first is soon after the opening, and alone"
        );
        assert!(!fail(false), "the second");
    }
}
