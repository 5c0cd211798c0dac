use super::*;
use crate::queue::{Delivery, QueueErrorKind, Refused, Settings};
use std::collections::VecDeque;
use std::sync::Mutex;

/// Answers delete calls from a script, and remembers them; afterwards all succeed.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Result<Vec<Refused>, QueueError>>>,
    calls: Mutex<Vec<Vec<String>>>,
}

impl Queue for Scripted {
    async fn receive(&self, _: usize, _: Duration) -> Result<Vec<Delivery>, QueueError> {
        std::future::pending().await
    }

    async fn acknowledge(&self, receipts: &[&str]) -> Result<Vec<Refused>, QueueError> {
        let receipts = receipts.iter().map(ToString::to_string).collect();
        self.calls.lock().unwrap().push(receipts);
        self.answers
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or_else(|| Ok(Vec::new()))
    }

    async fn change_visibility(&self, _: &[(&str, Duration)]) -> Result<Vec<Refused>, QueueError> {
        Ok(Vec::new())
    }

    async fn settings(&self) -> Result<Settings, QueueError> {
        Ok(Settings::default())
    }
}

fn refused(position: usize, sender_fault: bool) -> Refused {
    Refused {
        position,
        code: "Some".into(),
        sender_fault,
    }
}

async fn acknowledged(
    answers: Vec<Result<Vec<Refused>, QueueError>>,
    count: usize,
) -> (Vec<Vec<String>>, Metrics) {
    let queue = Arc::new(Scripted {
        answers: Mutex::new(answers.into()),
        ..Scripted::default()
    });
    let metrics = Metrics::new().0;
    let (acknowledger, task) = Acknowledger::start(
        queue.clone(),
        metrics.clone(),
        4,
        false,
        Durability::default(),
    );
    for number in 0..count {
        acknowledger
            .acknowledge(Acknowledgement {
                message_id: number.to_string(),
                receipt: format!("r{number}"),
                expires: Instant::now() + Duration::from_secs(30),
            })
            .await;
    }
    drop(acknowledger);
    task.await.unwrap();
    let calls = queue.calls.lock().unwrap().clone();
    (calls, metrics)
}

#[tokio::test(start_paused = true)]
async fn singles_are_deleted_in_full_batches_and_the_end_flushes_the_rest() {
    let (calls, metrics) = acknowledged(Vec::new(), 23).await;
    let mut sizes: Vec<_> = calls.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [3, 10, 10]);
    assert_eq!(metrics.acknowledged.get(), 23);
}

#[tokio::test(start_paused = true)]
async fn one_alone_does_not_wait_for_company_for_long() {
    let queue = Arc::new(Scripted::default());
    let (acknowledger, _task) = Acknowledger::start(
        queue.clone(),
        Metrics::new().0,
        4,
        false,
        Durability::default(),
    );
    let started = tokio::time::Instant::now();
    acknowledger
        .acknowledge(Acknowledgement {
            message_id: "1".into(),
            receipt: "r1".into(),
            expires: Instant::now() + Duration::from_secs(30),
        })
        .await;
    while queue.calls.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The clock is paused: this is the time that was slept, not the time it took.
    assert!(started.elapsed() <= MAX_WAIT + Duration::from_millis(5));
}

#[tokio::test(start_paused = true)]
async fn only_what_failed_on_the_servers_side_is_tried_again() {
    let answers = vec![Ok(vec![refused(1, false), refused(2, true)])];
    let (calls, metrics) = acknowledged(answers, 4).await;
    assert_eq!(calls, [vec!["r0", "r1", "r2", "r3"], vec!["r1"]]);
    assert_eq!(metrics.acknowledged.get(), 3);
    assert_eq!(metrics.acknowledge_failed.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_is_tried_again_and_given_up_in_the_end() {
    let error = |kind| {
        Err(QueueError {
            kind,
            detail: String::new(),
        })
    };
    let healing = vec![
        error(QueueErrorKind::Throttled),
        error(QueueErrorKind::Failed),
    ];
    let (calls, metrics) = acknowledged(healing, 2).await;
    assert_eq!(calls.len(), 3);
    assert_eq!(metrics.acknowledged.get(), 2);

    let lasting = (0..MAX_TRIES)
        .map(|_| error(QueueErrorKind::Timeout))
        .collect();
    let (calls, metrics) = acknowledged(lasting, 2).await;
    assert_eq!(calls.len(), MAX_TRIES as usize);
    assert_eq!(metrics.acknowledge_failed.get(), 2);

    let (calls, _) = acknowledged(vec![error(QueueErrorKind::AccessDenied)], 2).await;
    assert_eq!(calls.len(), 1, "asking again would be in vain");
}
