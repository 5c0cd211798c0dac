//! Runs one consumer: it receives, applies and acknowledges messages in a loop.
//!
//! The worker acknowledges a message when Redis holds its state or newer state, or when the message needs no
//! change, and never before. In every other case the message returns to the queue.

mod acknowledger;
mod ahead;
mod backoff;
mod batch;
pub mod budget;

mod lease;
mod limit;
mod parking;
mod shared;
mod suspects;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::health::{ConsumerView, Polling, State};
use crate::metrics::Operation;
use crate::queue::{Queue, QueueError};
use crate::store::Gate;
pub use acknowledger::Acknowledger;
use ahead::Ahead;
use backoff::Backoff;
use batch::Batch;
use budget::Reserved;
use lease::{Held, Leases};
pub use limit::{Limit, Unknown};
pub use parking::Parking;
pub use shared::{Flow, Policy, PollTimes, Watch, Work};
use suspects::Suspects;

/// How long a receive waits for messages, at most.
pub const LONG_POLL: Duration = Duration::from_secs(20);
/// The same, while an empty answer is to prove the state in memory. It asks all servers of SQS, as `LONG_POLL` does.
const PROVING_POLL: Duration = Duration::from_secs(1);
/// How long a receive in flight may run after the shutdown began or Redis failed. A busy queue answers
/// sooner; an idle queue has nothing to return.
const LAST_POLL_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a receive in flight may run if Redis does not answer, which takes up to 1.5 s to notice: 2 s after
/// the fault the worker receives nothing.
const LAST_POLL_TIMEOUT_AFTER_SILENCE: Duration = Duration::from_millis(250);

/// The pause after a poll was cut short, until the queue has dropped it.
const POLL_CANCEL_PAUSE: Duration = Duration::from_millis(100);

/// Work that takes longer, for example on a locked customer, keeps the consumer from polling: a
/// sleeping consumer takes over meanwhile.
const SLOW_WORK: Duration = Duration::from_millis(500);

/// The parts that all consumers of a process share.
pub struct Shared<Q> {
    pub work: Work<Q>,
    pub flow: Flow,
    pub watch: Watch,
}

/// Runs until the shutdown. Received messages are finished; only waiting is cut short.
pub async fn run<Q: Queue>(shared: &Arc<Shared<Q>>, view: &ConsumerView) {
    let leases = Leases::new(shared.watch.metrics.inflight_messages.clone());
    tokio::select! {
        biased;
        () = consume(shared, view, &leases) => {}
        never = leases.keep(shared) => match never {},
    }
}

async fn consume<Q: Queue>(shared: &Arc<Shared<Q>>, view: &ConsumerView, leases: &Arc<Leases>) {
    let mut backoff = Backoff::default();
    // Held while the queue answers; `/readyz` counts these.
    let mut polling: Option<Polling> = None;
    let mut ahead = Ahead::default();
    loop {
        // Requested during the previous batch, or else now.
        view.set_state(State::Receiving);
        let received = match ahead.answer().await {
            Some(received) => received,
            None => match ready(shared, view, &mut polling).await {
                Ready::No => continue,
                Ready::Over => return,
                Ready::Yes(reserved) => {
                    // The first poll does not wait, so that readiness does not take 20 s
                    // to be known.
                    let wait = match polling {
                        Some(_) => long_poll(shared),
                        None => Duration::ZERO,
                    };
                    view.set_state(State::Receiving);
                    receive(shared, leases, wait, reserved).await
                }
            },
        };
        let (received, reserved) = match received {
            Received::Messages(messages, reserved) => (messages, reserved),
            Received::Interrupted => continue,
            Received::Failed(error) => {
                polling = None;
                shared.flow.parking.wake_all();
                view.failed(error.to_string());
                view.set_state(State::BackingOff);
                let pause = backoff.after(&error);
                report(shared, &error, pause, &backoff);
                tokio::select! {
                    () = shared.flow.shutdown.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                continue;
            }
        };
        let first = polling.is_none();
        let outage = backoff.reset();
        // Each consumer notices by itself, and one of them logs it.
        if (first || outage.is_some())
            && shared.watch.health.queue_up()
            && shared.watch.outages.allow().is_some()
        {
            let after_secs = outage.map(|outage| outage.as_secs());
            tracing::info!(after_secs, "the queue answers again");
        }
        if first {
            polling = Some(Polling::start(&shared.watch.health));
        }
        if received.is_empty() {
            drop(reserved);
            if !first {
                sleep_while_idle(shared, view).await;
            }
            continue;
        }
        let is_full = received.len() >= shared.work.policy.batch_size;
        let count = received.len();
        let headers = received
            .iter()
            .filter_map(|held| held.trace_header.as_deref());
        let _span = shared.watch.traces.batch(count, headers);
        let batch = Batch::new(shared, leases, received, reserved);
        if shared.flow.shutdown.is_cancelled() {
            // Not started yet: return it to the queue so another worker gets it at once. But only after the polls
            // of this process have ended: they would receive it again and raise its receive count.
            shared.flow.polls_over.cancelled().await;
            tokio::time::sleep(POLL_CANCEL_PAUSE).await;
            batch.release_all().await;
            return;
        }
        if is_full
            && let Some(reserved) = shared
                .flow
                .budget
                .try_reserve(shared.work.policy.batch_size)
        {
            let (shared, leases, wait) = (shared.clone(), leases.clone(), long_poll(shared));
            ahead
                .ask(async move { receive(&shared, &leases, wait, reserved).await })
                .await;
        }
        view.set_state(State::Working);
        view.received(count);
        let mut work = std::pin::pin!(batch.work(view, &mut ahead));
        if tokio::time::timeout(SLOW_WORK, &mut work).await.is_err() {
            let _busy = shared.flow.parking.busy();
            work.await;
        }
    }
}

/// Returns how long a receive waits for messages.
fn long_poll<Q: Queue>(shared: &Shared<Q>) -> Duration {
    match shared.work.store.awaits_proof() {
        true => PROVING_POLL,
        false => shared.flow.polls.long,
    }
}

enum Ready {
    Yes(Reserved),
    /// Not ready: check again.
    No,
    Over,
}

/// Waits until Redis takes writes and there is room for the messages of a receive.
async fn ready<Q: Queue>(
    shared: &Shared<Q>,
    view: &ConsumerView,
    polling: &mut Option<Polling>,
) -> Ready {
    let gate = shared.work.store.gate();
    if !gate.is_open() {
        *polling = None;
        view.set_state(State::WaitingForRedis);
        tokio::select! {
            biased;
            () = shared.flow.shutdown.cancelled() => return Ready::Over,
            () = gate.opened() => {}
            () = tokio::time::sleep(LONG_POLL) => return Ready::No,
        }
    }
    view.set_state(State::WaitingForRoom);
    tokio::select! {
        biased;
        () = shared.flow.shutdown.cancelled() => Ready::Over,
        reserved = shared.flow.budget.reserve(shared.work.policy.batch_size) => Ready::Yes(reserved),
        () = tokio::time::sleep(LONG_POLL) => Ready::No,
    }
}

/// Sleeps after an empty poll until another consumer finds more than it can process, if enough consumers
/// keep polling.
async fn sleep_while_idle<Q: Queue>(shared: &Shared<Q>, view: &ConsumerView) {
    let Some(parked) = shared.flow.parking.park() else {
        return;
    };
    view.set_state(State::Sleeping);
    loop {
        tokio::select! {
            () = shared.flow.shutdown.cancelled() => return,
            () = shared.work.store.gate().closed() => return,
            () = parked.woken() => return,
            () = tokio::time::sleep(LONG_POLL) => view.progress(),
        }
    }
}

enum Received {
    Messages(Vec<Held>, Reserved),
    Interrupted,
    Failed(QueueError),
}

/// Receives messages. This is the only wait that is cut short. A dropped receive may strand messages until their
/// visibility timeout: a delay, not a loss. So a receive in flight gets some more time, at the shutdown and
/// while Redis is down; the consumer keeps its messages. A state in memory must know of a dropped receive, and while its
/// journal cannot be written none is dropped, since no other process waits for the messages.
async fn receive<Q: Queue>(
    shared: &Shared<Q>,
    leases: &Arc<Leases>,
    wait: Duration,
    mut reserved: Reserved,
) -> Received {
    if shared.flow.polls_over.is_cancelled() {
        return Received::Interrupted;
    }
    let (started, store) = (Instant::now(), &shared.work.store);
    let batch_size = shared.work.policy.batch_size;
    let in_flight = shared.flow.receives.token();
    let answer = tokio::select! {
        biased;
        answer = shared.work.queue.receive(batch_size, wait) => answer,
        () = shared.flow.polls_over.cancelled() => {
            store.stranded();
            return Received::Interrupted;
        }
        () = redis_is_away(store.gate()), if !store.is_in_memory() => return Received::Interrupted,
    };
    drop(in_flight);
    shared
        .watch
        .metrics
        .called(Operation::Receive, started, &answer);
    let messages = match answer {
        Ok(messages) => messages,
        Err(error) => {
            if error.kind.may_be_done() {
                store.answer_lost();
            }
            return Received::Failed(error);
        }
    };
    let bodies = messages.iter().map(|delivery| delivery.body.len());
    shared.flow.budget.settle(&mut reserved, bodies);
    let visibility = shared.flow.settings.borrow().visibility_timeout;
    store.received(&messages, wait, lease::longest_hidden(visibility));
    shared.watch.metrics.polled(messages.len());
    if messages.len() >= batch_size {
        // A full batch: wake as many consumers again, until all poll.
        shared.flow.parking.wake(2);
    }
    let redelivered = messages
        .iter()
        .filter(|delivery| delivery.receive_count > 1)
        .count();
    shared.watch.metrics.redelivered.inc_by(redelivered as u64);
    let held = messages.into_iter().map(|it| leases.hold(it)).collect();
    Received::Messages(held, reserved)
}

/// Returns when Redis has taken no writes for as long as a receive in flight may run.
async fn redis_is_away(gate: &Gate) {
    loop {
        gate.closed().await;
        let time = match gate.was_silence() {
            true => LAST_POLL_TIMEOUT_AFTER_SILENCE,
            false => LAST_POLL_TIMEOUT,
        };
        if tokio::time::timeout(time, gate.opened()).await.is_err() {
            return;
        }
    }
}

/// Logs a failed receive once for each outage and consumer, and again if it lasts. Only the first consumer to
/// notice logs a warning or an error.
fn report<Q>(shared: &Shared<Q>, error: &QueueError, pause: Duration, backoff: &Backoff) {
    let is_news = shared
        .watch
        .health
        .queue_down(error.kind.to_string(), error.detail.clone());
    let news = is_news && shared.watch.outages.allow().is_some();
    if !news && !backoff.failures().is_multiple_of(20) {
        tracing::debug!(%error, "receiving failed again");
        return;
    }
    let (kind, advice) = (error.kind.to_string(), error.kind.advice());
    let detail = &error.detail;
    let pause_ms = pause.as_millis() as u64;
    if error.kind.needs_a_person() {
        let text = "cannot receive from the queue";
        tracing::error!(kind, detail, advice, pause_ms, "{text}");
    } else {
        tracing::warn!(
            kind,
            detail,
            advice,
            pause_ms,
            "receiving from the queue failed"
        );
    }
}
