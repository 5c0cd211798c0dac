//! Messages that the worker applies in another way than they are written: it counts them, and says so.

use std::time::Duration;

use serde_json::json;

use testkit::events::{ACME, FAR_FUTURE, at, entitlements, metered, seats};
use testkit::redis::Redis;
use testkit::sqs::Sqs;
use testkit::until;
use testkit::worker::Worker;

const SOON: Duration = Duration::from_secs(30);
const ACKNOWLEDGED: &str = "entitlement_sync_messages_acknowledged_total";

#[tokio::test(flavor = "multi_thread")]
async fn times_of_a_clock_ahead_are_counted_and_said() {
    const AHEAD: &str = "entitlement_sync_times_ahead_total";
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    let queue = sqs.queue("q").await;
    let worker = Worker::builder(&redis, &queue).start().await;
    queue.send(&seats(ACME, 10, at(1))).await;
    queue.wait_empty(SOON).await;
    assert_eq!(worker.metric(AHEAD).await, 0.0);
    let message = queue
        .send(&entitlements(
            ("canary", None),
            FAR_FUTURE,
            &[metered("seats", 10, 1, FAR_FUTURE)],
        ))
        .await;
    queue.wait_empty(SOON).await;
    assert_eq!(
        worker.metric(AHEAD).await,
        2.0,
        "of the list and of a usage"
    );
    let logs = worker.logs();
    let said: Vec<&str> = logs
        .lines()
        .filter(|line| line.contains("later than its sending; the worker uses the time of sending"))
        .collect();
    assert_eq!(said.len(), 1, "{logs}");
    assert!(
        said[0].contains(&message) && said[0].contains("times=2"),
        "{}",
        said[0]
    );
    assert!(!logs.contains("canary"), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_entitlements_are_counted_and_said_once() {
    const CREDITS: &str = "entitlement_sync_messages_with_credit_entitlements_total";
    let (redis, sqs) = (Redis::start().await, Sqs::start().await);
    for (number, (variable, value, says)) in [
        (
            "CREDIT_ENTITLEMENTS",
            "",
            Some("the worker removes such customers"),
        ),
        (
            "CREDIT_ENTITLEMENTS",
            "omit",
            Some("the worker writes such customers without them"),
        ),
        ("CACHE_UPDATE_POLICY", "INVALIDATE", None),
    ]
    .into_iter()
    .enumerate()
    {
        let queue = sqs.queue(&format!("q{number}")).await;
        let worker = Worker::builder(&redis, &queue)
            .env("ENVIRONMENT_PREFIX", format!("credits-{number}"))
            .env(variable, value)
            .start()
            .await;
        let credit =
            json!({"type": "CREDIT", "currency": {"currencyId": "canary"}, "usageLimit": 5});
        for second in 1..=3 {
            let list = [metered("seats", 10, 1, at(second)), credit.clone()];
            queue
                .send(&entitlements(("canary", None), at(second), &list))
                .await;
        }
        queue.send(&seats(ACME, 10, at(1))).await;
        queue.wait_empty(SOON).await;
        until("they are acknowledged", SOON, async || {
            worker.metric(ACKNOWLEDGED).await == 4.0
        })
        .await;
        assert_eq!(worker.metric(CREDITS).await, 3.0, "{variable}={value}");
        let logs = worker.logs();
        let said: Vec<&str> = logs
            .lines()
            .filter(|line| line.contains("messages list credit entitlements"))
            .collect();
        assert_eq!(said.len(), usize::from(says.is_some()), "{logs}");
        for line in said {
            assert!(line.contains(says.unwrap()), "{line}");
            assert!(line.contains("CREDIT_ENTITLEMENTS=omit"), "{line}");
        }
        assert!(!logs.contains("canary"), "{logs}");
    }
}
