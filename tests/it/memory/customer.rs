//! `snapshot inspect --customer`: what a file holds of one customer, and nothing of another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::{drained, limit};
use super::restart::{KEY, NO_EDGE, kept_in};
use testkit::events::{ACME, SITE, at, credit, entitlements, metered, purge, seats, usage};
use testkit::operator::Done;
use testkit::{Operator, Reader, Redis, Sqs};

const SOON: Duration = Duration::from_secs(60);
const OTHER: (&str, Option<&str>) = ("globex", None);

/// The newest file of a kind.
fn newest(folder: &Path, extension: &str) -> PathBuf {
    let files = std::fs::read_dir(folder).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let of_kind = paths.filter(|path| path.extension().is_some_and(|it| it == extension));
    of_kind.max().unwrap()
}

async fn inspect(file: &Path, arguments: &[&str]) -> Done {
    let file = file.to_str().unwrap();
    let arguments = [&["snapshot", "inspect", file], arguments].concat();
    let operator = Operator::in_memory().env("SNAPSHOT_KEY", KEY);
    operator.run(&arguments).await
}

/// What the JSON of the command says of a customer.
async fn of(file: &Path, arguments: &[&str]) -> Value {
    let done = inspect(file, &[arguments, &["--json"]].concat()).await;
    assert_eq!(done.code, 0, "{done:?}");
    assert!(!done.stdout.contains("globex"), "{done:?}");
    done.json()["customer"].clone()
}

fn assert_shows(done: &Done, parts: &[&str]) {
    assert_eq!(done.code, 0, "{done:?}");
    for part in parts {
        assert!(done.stdout.contains(part), "{part}: {}", done.stdout);
    }
    assert!(!done.stdout.contains("globex"), "{}", done.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_shows_the_customer_that_is_named_and_no_other() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let reader = kept_in(folder.path(), &queue, NO_EDGE).start().await;
    let of_site = entitlements(SITE, at(2), &[metered("seats", 3, 1, at(2))]);
    for body in [
        seats(ACME, 10, at(1)),
        seats(OTHER, 987_654, at(1)),
        usage(ACME, "seats", 4, at(3)),
        credit(ACME, "tokens", 7, at(4)),
        of_site,
        purge([("initech", None)], at(5)),
    ] {
        queue.send(&body).await;
        drained(&queue).await;
    }
    reader.term();
    assert_eq!(reader.wait_exit(SOON).await, 0);
    let file = newest(folder.path(), "snapshot");

    let acme = of(&file, &["--customer", "acme"]).await;
    let seats = &acme["entitlements"][0];
    assert_eq!((&seats["limit"], &seats["usage"]), (&json!(10), &json!(4)));
    assert_eq!(acme["resources"][0]["id"], "site-1");
    let stored = acme["stored"].as_array().unwrap();
    let times = |name: &str| {
        let pair = stored.iter().find(|it| it["name"] == name);
        pair.unwrap_or_else(|| panic!("{name}: {acme}"))["at"].clone()
    };
    assert_eq!(times("entitlements"), at(1));
    assert_eq!(times("usage of seats"), at(3));
    assert_eq!(times("credit tokens"), at(4));
    let site = of(&file, &["--customer", "acme", "--resource", "site-1"]).await;
    assert_eq!(site["entitlements"][0]["limit"], 3);
    assert_eq!(site["misses"], json!([]), "it is newer than its customer");
    let text = inspect(&file, &["--customer", "acme"]).await;
    assert_shows(
        &text,
        &["whole     yes", "seats", "credit tokens", "site-1"],
    );
    let purged = inspect(&file, &["--customer", "initech"]).await;
    assert_shows(&purged, &["initech is not in the snapshot", "purged as of"]);

    let unknown = inspect(&file, &["--customer", "nobody"]).await;
    assert_eq!(unknown.code, 1, "{unknown:?}");
    assert!(unknown.stdout.contains("nobody is not in the snapshot"));
    let without = inspect(&file, &[]).await;
    for word in ["acme", "globex", "seats", "tokens"] {
        assert!(!without.stdout.contains(word), "{word}: {without:?}");
    }
    let no_key = Operator::in_memory()
        .run(&[
            "snapshot",
            "inspect",
            file.to_str().unwrap(),
            "--customer",
            "acme",
        ])
        .await;
    assert_eq!(no_key.code, 78, "{no_key:?}");
    assert!(
        no_key
            .stderr
            .contains("the key is needed to read a customer")
    );
    assert_eq!(no_key.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_shows_the_changes_of_the_customer_that_is_named() {
    let (sqs, folder) = (Sqs::start().await, TempDir::new().unwrap());
    let queue = sqs.queue("q").await;
    let _reader = kept_in(folder.path(), &queue, NO_EDGE).start().await;
    for body in [
        seats(ACME, 10, at(1)),
        seats(OTHER, 987_654, at(1)),
        usage(ACME, "seats", 4, at(3)),
        purge([ACME], at(5)),
    ] {
        queue.send(&body).await;
        drained(&queue).await;
    }
    // It is read while the process writes to it.
    let file = newest(folder.path(), "journal");
    let acme = of(&file, &["--customer", "acme"]).await;
    let changes = acme["changes"].as_array().unwrap();
    let change = |change: &str, name: &str| {
        let found = changes
            .iter()
            .find(|it| it["change"] == change && it["name"] == name);
        found
            .unwrap_or_else(|| panic!("{change} of {name}: {acme}"))
            .clone()
    };
    assert!(
        !acme.to_string().contains("987654"),
        "the limit of another: {acme}"
    );
    let set = change("set", "entitlements");
    assert_eq!(set["at"], at(1));
    assert!(set["value"].as_str().unwrap().contains("\"usageLimit\":10"));
    assert_eq!(change("usage", "usage of seats")["at"], at(3));
    assert_eq!(change("purge", "all")["at"], at(5));
    let text = inspect(&file, &["--customer", "acme"]).await;
    assert_shows(&text, &["APPLIED", "usage of seats", "purge"]);
    let without = inspect(&file, &[]).await;
    assert!(!without.stdout.contains("acme"), "{without:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_the_copy_shows_the_last_known_state() {
    let (redis, folder) = (Redis::start().await, TempDir::new().unwrap());
    let reader = Reader::builder(&redis, NO_EDGE)
        .env("SNAPSHOT_PATH", folder.path().display())
        .env("SNAPSHOT_KEY", KEY)
        .start()
        .await;
    let map = json!({"seats": {"calculatedEntitlement": {"feature": {"id": "seats", "featureType": "NUMBER",
        "meterType": "None", "units": "", "unitsPlural": ""}, "usageLimit": 10, "hasUnlimitedUsage": false,
        "hasSoftLimit": false, "enumValues": []},
        "featureUsage": {"resetPeriod": null, "resetPeriodConfiguration": null, "currentUsage": 0}}});
    for customer in ["acme", "globex"] {
        let key = format!("production:c_{customer}");
        let stamp = (format!("{key}#timestamp"), at(1).to_string());
        redis.cmd(&["MSET", &key, &map.to_string(), &stamp.0, &stamp.1]);
        assert_eq!(limit(&reader, customer).await, Some(10));
    }
    reader.term();
    assert_eq!(reader.wait_exit(SOON).await, 0);
    let file = newest(folder.path(), "snapshot");
    let acme = of(&file, &["--customer", "acme"]).await;
    assert_eq!(acme["entitlements"][0]["limit"], 10);
    assert_eq!(acme["updated_at"], at(1));
    assert!(acme["known_at"].as_u64() > Some(at(1)));
    let text = inspect(&file, &["--customer", "acme"]).await;
    assert_shows(&text, &["known to be true", "seats", "granted"]);
    assert_eq!(inspect(&file, &["--customer", "nobody"]).await.code, 1);
}
