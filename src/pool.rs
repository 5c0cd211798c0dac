//! Runs the consumers of a process, and replaces consumers that panic or stall.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;

use crate::consumer::{self, LONG_POLL, Shared};
use crate::health::ConsumerView;
use crate::queue::Queue;

/// The time without progress after which a consumer is replaced: longer than a long poll with its timeout.
const STALL_TIMEOUT: Duration = Duration::from_secs(LONG_POLL.as_secs() + 25);
const STALL_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The gap between two checks after which the process itself did not run: it was stopped, or had no CPU.
const MIN_PROCESS_STOP: Duration = Duration::from_secs(5);

struct Slot {
    view: Arc<ConsumerView>,
    task: AbortHandle,
}

/// Runs `count` consumers until the shutdown is done. One that panics or makes no progress is
/// replaced; SQS redelivers its messages.
pub async fn run<Q: Queue>(shared: Arc<Shared<Q>>, count: usize) {
    let mut tasks = JoinSet::new();
    let mut slots: Vec<Slot> = (0..count)
        .map(|place| start(&mut tasks, &shared, place))
        .collect();
    let mut look = tokio::time::interval(STALL_CHECK_INTERVAL);
    let mut looked = Instant::now();
    // Silence counts from here: no consumer made progress while the process did not run.
    let mut running_since = looked;
    loop {
        shared.watch.health.tick();
        tokio::select! {
            ended = tasks.join_next_with_id() => match ended {
                None => return,
                Some(Ok(_)) if shared.flow.shutdown.is_cancelled() => {}
                Some(Ok((id, ()))) => replace(&mut slots, id, "ended", &mut tasks, &shared),
                Some(Err(error)) => {
                    let how = if error.is_panic() { "panicked" } else { "stalled" };
                    replace(&mut slots, error.id(), how, &mut tasks, &shared);
                }
            },
            _ = look.tick() => {
                let now = Instant::now();
                if now - looked > MIN_PROCESS_STOP {
                    running_since = now;
                }
                looked = now;
                for slot in &slots {
                    if slot.view.idle_for().min(now - running_since) > STALL_TIMEOUT {
                        slot.task.abort();
                    }
                }
            }
        }
    }
}

fn start<Q: Queue>(tasks: &mut JoinSet<()>, shared: &Arc<Shared<Q>>, place: usize) -> Slot {
    let view = shared.watch.health.consumer(place);
    let (shared, of_task) = (shared.clone(), view.clone());
    let task = tasks.spawn(async move { consumer::run(&shared, &of_task).await });
    Slot { view, task }
}

fn replace<Q: Queue>(
    slots: &mut [Slot],
    id: Id,
    how: &'static str,
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared<Q>>,
) {
    let Some(place) = slots.iter().position(|slot| slot.task.id() == id) else {
        return;
    };
    shared.watch.metrics.consumers_restarted.inc();
    shared.work.store.stranded();
    if shared.flow.shutdown.is_cancelled() {
        tracing::error!(
            kind = how,
            "a consumer failed during the shutdown; SQS redelivers its messages"
        );
        return;
    }
    tracing::error!(
        kind = how,
        "a consumer failed and was replaced; SQS redelivers its messages"
    );
    slots[place] = start(tasks, shared, place);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::budget::Budget;
    use crate::consumer::{Acknowledger, Flow, Parking, Policy, PollTimes, Watch, Work};
    use crate::health::Health;
    use crate::keys::Keys;
    use crate::metrics::Metrics;
    use crate::plan::Planner;
    use crate::queue::{Delivery, QueueError, Refused, Settings};
    use crate::store::{Durability, Store};
    use crate::telemetry::Traces;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    /// Its first receives hang as no timeout would allow, or panic; the later ones are empty.
    struct Bad {
        receives: AtomicUsize,
        bad: usize,
        panics: bool,
    }

    impl Queue for Bad {
        async fn receive(&self, _: usize, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
            if self.receives.fetch_add(1, Ordering::SeqCst) < self.bad {
                assert!(!self.panics, "on purpose");
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(wait.max(Duration::from_millis(10))).await;
            Ok(Vec::new())
        }

        async fn acknowledge(&self, _: &[&str]) -> Result<Vec<Refused>, QueueError> {
            Ok(Vec::new())
        }

        async fn change_visibility(
            &self,
            _: &[(&str, Duration)],
        ) -> Result<Vec<Refused>, QueueError> {
            Ok(Vec::new())
        }

        async fn settings(&self) -> Result<Settings, QueueError> {
            Ok(Settings::default())
        }
    }

    fn shared(queue: Bad) -> Arc<Shared<Bad>> {
        let queue = Arc::new(queue);
        let shutdown = CancellationToken::new();
        let (metrics, _) = Metrics::new();
        let health = Arc::new(Health::default());
        let parking = Arc::new(Parking::new(Arc::default(), 3, 1));
        let settings = watch::channel(Settings::default()).1;
        let budget = Budget::new(None, None, &metrics);
        Arc::new(Shared {
            work: Work {
                store: Store::unconnected(metrics.clone(), health.clone()),
                acknowledger: Acknowledger::start(
                    queue.clone(),
                    metrics.clone(),
                    1,
                    false,
                    Durability::default(),
                )
                .0,
                queue,
                planner: Planner {
                    keys: Keys::new("p"),
                    rules: Default::default(),
                    ttl_secs: None,
                },
                policy: Policy {
                    batch_size: 10,
                    fifo: false,
                    update_if_exists: false,
                    lock_retries: 0,
                    max_receive_count: 5,
                    dead_letter_max_len: 10,
                },
            },
            flow: Flow::new(
                budget,
                parking,
                settings,
                (shutdown, Duration::from_secs(8)),
                PollTimes::beside_others(),
            ),
            watch: Watch::new(health, metrics, Traces::default()),
        })
    }

    async fn restarted(bad: Bad) -> (u64, usize) {
        let shared = shared(bad);
        let pool = tokio::spawn(run(shared.clone(), 3));
        tokio::time::sleep(STALL_TIMEOUT * 3).await;
        let polling = shared.watch.health.readiness().consumers;
        shared.flow.shutdown.cancel();
        pool.await.unwrap();
        (shared.watch.metrics.consumers_restarted.get(), polling)
    }

    #[tokio::test(start_paused = true)]
    async fn a_consumer_that_stalls_or_panics_is_replaced() {
        for panics in [false, true] {
            let (receives, bad) = (AtomicUsize::new(0), 2);
            let ended = restarted(Bad {
                receives,
                bad,
                panics,
            })
            .await;
            assert_eq!(ended, (2, 3), "panics: {panics}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_queue_restarts_no_consumer() {
        let (receives, bad, panics) = (AtomicUsize::new(0), 0, false);
        assert_eq!(
            restarted(Bad {
                receives,
                bad,
                panics
            })
            .await,
            (0, 3)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_replaces_no_consumer_for_it() {
        let (receives, bad, panics) = (AtomicUsize::new(0), 0, false);
        let shared = shared(Bad {
            receives,
            bad,
            panics,
        });
        let pool = tokio::spawn(run(shared.clone(), 3));
        for _ in 0..5 {
            // In the middle of their long polls.
            tokio::time::sleep(LONG_POLL / 2).await;
            // The clock goes on and nothing runs.
            tokio::time::advance(STALL_TIMEOUT * 2).await;
        }
        tokio::time::sleep(STALL_TIMEOUT).await;
        shared.flow.shutdown.cancel();
        pool.await.unwrap();
        assert_eq!(shared.watch.metrics.consumers_restarted.get(), 0);
    }
}
