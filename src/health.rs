//! Holds the health of the process: the workers write it, the probes read it; no I/O.

mod answers;
mod consumers;

pub use answers::{Link, Liveness, Readiness, Status, StoreLink};
pub use consumers::{ConsumerStatus, ConsumerView, State};

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The silence of the supervisor, which ticks each second, after which the process counts as dead.
const SUPERVISOR_SILENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct QueueReason {
    kind: String,
    detail: String,
}

/// Shared by all parts of the process.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    draining: AtomicBool,
    redis_connected: AtomicBool,
    polling: AtomicUsize,
    /// Milliseconds after `started`.
    supervisor_tick: AtomicU64,
    /// Why Redis is down at the moment.
    redis_reason: Mutex<String>,
    queue_reason: Mutex<Option<QueueReason>>,
    consumers: Mutex<Vec<Arc<ConsumerView>>>,
    /// For a process with only the read API: whether it can answer.
    answers: Option<AtomicBool>,
    /// Whether the state is in this process, and not in Redis.
    is_in_memory: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            draining: AtomicBool::new(false),
            redis_connected: AtomicBool::new(false),
            polling: AtomicUsize::new(0),
            supervisor_tick: AtomicU64::new(0),
            redis_reason: Mutex::new("not connected yet".into()),
            queue_reason: Mutex::new(None),
            consumers: Mutex::default(),
            answers: None,
            is_in_memory: false,
        }
    }
}

impl Health {
    /// Returns the health of a process that runs only the read API.
    pub fn answering() -> Self {
        Self {
            answers: Some(AtomicBool::new(false)),
            ..Self::default()
        }
    }

    /// Returns the health of a process that holds the state itself.
    pub fn in_memory() -> Self {
        Self {
            is_in_memory: true,
            ..Self::default()
        }
    }

    /// Names the store that takes changes while the process is ready.
    pub fn store_in_words(&self) -> &'static str {
        match self.is_in_memory {
            true => "the state is in memory",
            false => "Redis answers",
        }
    }

    /// Whether this is a process that only answers questions.
    pub fn only_answers(&self) -> bool {
        self.answers.is_some()
    }

    /// Sets whether the read API can answer any question.
    pub fn can_answer(&self, can_answer: bool) {
        if let Some(answers) = &self.answers {
            answers.store(can_answer, Ordering::Relaxed);
        }
    }

    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub fn redis_up(&self) {
        self.redis_connected.store(true, Ordering::Relaxed);
    }

    pub fn redis_down(&self, reason: &str) {
        reason.clone_into(
            &mut self
                .redis_reason
                .lock()
                .unwrap_or_else(|lock| lock.into_inner()),
        );
        self.redis_connected.store(false, Ordering::Relaxed);
    }

    /// Records an answer of the queue; returns whether the queue was down before.
    pub fn queue_up(&self) -> bool {
        let mut known = self
            .queue_reason
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        known.take().is_some()
    }

    /// Records a failure of the queue; returns whether its kind is new. Details differ from call to call.
    pub fn queue_down(&self, kind: String, detail: String) -> bool {
        let mut known = self
            .queue_reason
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        let reason = QueueReason { kind, detail };
        let kind = reason.kind.clone();
        known.replace(reason).is_none_or(|known| known.kind != kind)
    }

    /// Registers a new consumer in a slot, replacing the previous one.
    pub fn consumer(&self, place: usize) -> Arc<ConsumerView> {
        let view = Arc::new(ConsumerView::default());
        let mut consumers = self
            .consumers
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        match consumers.get_mut(place) {
            Some(before) => before.clone_from(&view),
            None => consumers.push(view.clone()),
        }
        view
    }

    pub fn consumers(&self) -> Vec<ConsumerStatus> {
        let consumers = self
            .consumers
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        consumers.iter().map(|view| view.status()).collect()
    }

    /// Records that the supervisor of the consumers is alive.
    pub fn tick(&self) {
        let now = self.started.elapsed().as_millis();
        self.supervisor_tick
            .store(u64::try_from(now).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub fn liveness(&self) -> Liveness {
        let tick = Duration::from_millis(self.supervisor_tick.load(Ordering::Relaxed));
        let silent = self.started.elapsed().saturating_sub(tick);
        Liveness {
            status: if silent < SUPERVISOR_SILENCE {
                Status::Up
            } else {
                Status::Down
            },
        }
    }

    /// Marks the process as draining: it is then not ready, whatever the state of Redis.
    pub fn readiness(&self) -> Readiness {
        let draining = self.draining.load(Ordering::Relaxed);
        let connected = !draining && self.redis_connected.load(Ordering::Relaxed);
        let consumers = if connected {
            self.polling.load(Ordering::Relaxed)
        } else {
            0
        };
        let is_up = match &self.answers {
            Some(answers) => !draining && answers.load(Ordering::Relaxed),
            None => consumers > 0,
        };
        let link = match connected {
            true => Link::Connected,
            false => Link::Disconnected,
        };
        Readiness {
            status: if is_up { Status::Up } else { Status::Down },
            consumers,
            store: match self.is_in_memory {
                true => StoreLink::Store(link),
                false => StoreLink::Redis(link),
            },
        }
    }

    /// Returns why the process is not ready; `None` when it is ready.
    pub fn unready_reason(&self) -> Option<String> {
        let readiness = self.readiness();
        if readiness.status == Status::Up {
            return None;
        }
        if self.draining.load(Ordering::Relaxed) {
            return Some("shutting down".into());
        }
        if self.answers.is_some() {
            let nothing =
                "neither Redis nor the Edge API answers, and no copy in memory is fresh enough";
            return Some(nothing.into());
        }
        let (name, link) = match readiness.store {
            StoreLink::Redis(link) => ("redis", link),
            StoreLink::Store(link) => ("store", link),
        };
        if link == Link::Disconnected {
            let reason = self
                .redis_reason
                .lock()
                .unwrap_or_else(|lock| lock.into_inner());
            return Some(format!("{name}: {reason}"));
        }
        let reason = self
            .queue_reason
            .lock()
            .unwrap_or_else(|lock| lock.into_inner());
        Some(match &*reason {
            Some(QueueReason { kind, detail }) => format!("queue: {kind}: {detail}"),
            None => "queue: no answer yet".into(),
        })
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Held by a consumer while it polls, so that the count stays right after a panic.
#[derive(Debug)]
pub struct Polling(Arc<Health>);

impl Polling {
    pub fn start(health: &Arc<Health>) -> Self {
        health.polling.fetch_add(1, Ordering::Relaxed);
        Self(health.clone())
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.0.polling.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(readiness: Readiness) -> String {
        serde_json::to_string(&readiness).unwrap()
    }

    const DOWN: &str = r#"{"status":"DOWN","consumers":0,"redis":"DISCONNECTED"}"#;

    #[test]
    fn ready_only_while_redis_answers_and_someone_polls() {
        let health = Arc::new(Health::default());
        assert_eq!(json(health.readiness()), DOWN);
        let consumers: Vec<_> = (0..10).map(|_| Polling::start(&health)).collect();
        assert_eq!(json(health.readiness()), DOWN);
        health.redis_up();
        assert_eq!(
            json(health.readiness()),
            r#"{"status":"UP","consumers":10,"redis":"CONNECTED"}"#
        );
        drop(consumers);
        assert_eq!(
            json(health.readiness()),
            r#"{"status":"DOWN","consumers":0,"redis":"CONNECTED"}"#
        );
        let _one = Polling::start(&health);
        health.drain();
        assert_eq!(json(health.readiness()), DOWN);
        assert_eq!(health.unready_reason().as_deref(), Some("shutting down"));
    }

    #[test]
    fn without_a_redis_its_name_is_not_used() {
        let health = Arc::new(Health::in_memory());
        assert_eq!(
            json(health.readiness()),
            r#"{"status":"DOWN","consumers":0,"store":"DISCONNECTED"}"#
        );
        let reason = health.unready_reason();
        assert_eq!(reason.as_deref(), Some("store: not connected yet"));
        health.redis_up();
        let _one = Polling::start(&health);
        assert_eq!(
            json(health.readiness()),
            r#"{"status":"UP","consumers":1,"store":"CONNECTED"}"#
        );
        assert_eq!(health.store_in_words(), "the state is in memory");
    }

    #[test]
    fn a_panicking_consumer_is_not_counted() {
        let health = Arc::new(Health::default());
        let of_thread = health.clone();
        let thread = std::thread::spawn(move || {
            let _polling = Polling::start(&of_thread);
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert_eq!(health.polling.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_reason_names_what_is_down() {
        let health = Health::default();
        health.redis_down("WRONGPASS");
        assert_eq!(health.unready_reason().as_deref(), Some("redis: WRONGPASS"));
        health.redis_up();
        let down =
            |detail: &str| health.queue_down("credentials have expired".into(), detail.into());
        assert!(down("at 7"));
        assert!(!down("at 8"));
        assert_eq!(
            health.unready_reason().as_deref(),
            Some("queue: credentials have expired: at 8")
        );
        health.queue_up();
        assert_eq!(
            health.unready_reason().as_deref(),
            Some("queue: no answer yet")
        );
    }
}
