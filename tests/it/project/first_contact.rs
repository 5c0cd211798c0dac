//! docs/first-contact.md, followed step by step; and every link of the documents.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::commands::messages::Cli;
use crate::stand::{SOON, Stand};
use testkit::events::{ACME, at, metered, seats};
use testkit::{Answer, EdgeMock, Worker, repo, until};

/// Of a kind that is not known.
const NEW: &str = r#"{"type":"NEW","id":"canary"}"#;
const PAGE: &str = "docs/first-contact.md";

/// The lines of blocks of shell, and commands of ours within the text.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, part) in page.split("```").enumerate() {
        if number % 2 == 1 {
            let lines = part.strip_prefix("sh\n").unwrap_or_default().lines();
            found.extend(lines.map(str::to_owned));
            continue;
        }
        let quoted = part.split('`').skip(1).step_by(2);
        let ours = quoted.filter(|it| it.starts_with("entitlement-sync "));
        found.extend(ours.map(|it| it.replace('\n', " ")));
    }
    found
}

/// What `curl … | grep …` prints.
async fn curl(worker: &Worker, line: &str) -> String {
    let (_, path) = line.split_once("localhost:4000").unwrap();
    let path = path.split(['\'', ' ']).next().unwrap();
    let reply = worker.http(path).await;
    assert_eq!(reply.status, 200, "{line}");
    let mut lines: Vec<&str> = reply.body.lines().collect();
    for filter in line.split(" | grep ").skip(1) {
        match filter.strip_prefix("-v ") {
            Some(end) => {
                let end = end.trim_matches('\'').trim_end_matches('$');
                lines.retain(|line| !line.ends_with(end));
            }
            None => lines.retain(|line| line.contains(filter)),
        }
    }
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_hour_can_be_followed_as_it_is_written() {
    let (stand, edge) = (Stand::start().await, EdgeMock::start().await);
    let configuration = json!({"data": {"sdkConfiguration": {"sentryDsn": null}}});
    edge.answer(
        "/v1/config/server-sdk-configuration.json",
        Answer::json(200, &configuration),
    );
    let list = json!({"data": {"entitlements": [metered("seats", 10, 1, at(1))]}});
    edge.answer("/v1/c/acme/entitlements.json", Answer::json(200, &list));
    let cli = Cli::new(&stand.redis)
        .queue(&stand.queue.url)
        .env("AWS_ENDPOINT_URL_SQS", stand.calls.url())
        .env("SERVER_API_KEY", "test-key")
        .env("EDGE_API_URL", edge.url());
    cli.file("body.json", &seats(ACME, 10, at(1)));
    stand.queue.send(&seats(ACME, 10, at(1))).await;
    stand.queue.send(NEW).await;

    let page = fs::read_to_string(repo(PAGE)).unwrap();
    let commands = commands(&page);
    assert!(commands.len() >= 10, "{commands:?}");
    let mut worker = None;
    let mut followed = HashSet::new();
    for line in &commands {
        if line.starts_with("curl ") {
            if worker.is_none() {
                worker = Some(
                    stand
                        .worker()
                        .env("CONSUMERS", 1)
                        .env("MIN_POLLERS", 1)
                        .start()
                        .await,
                );
                stand.queue.wait_empty(SOON).await;
            }
            let worker = worker.as_ref().unwrap();
            let shown = match line.contains("grep") {
                false => curl(worker, line).await,
                true => {
                    until("the outcomes are counted", SOON, async || {
                        !curl(worker, line).await.is_empty()
                    })
                    .await;
                    curl(worker, line).await
                }
            };
            let expected = match line.contains("readyz") {
                true => &["ready: 1"][..],
                false => &["outcome=\"applied\"", "outcome=\"unrecognised\""],
            };
            for expected in expected {
                assert!(shown.contains(expected), "{line}: {shown}");
            }
            followed.insert("curl".to_owned());
            continue;
        }
        let words = line.strip_prefix("entitlement-sync ").unwrap_or_else(|| {
            panic!("neither curl nor ours: {line}");
        });
        let words = words.replace("<a customer that you know>", "acme");
        let words = words.replace("<customer>", "acme");
        let mut words: Vec<&str> = words.split_whitespace().collect();
        // A person is asked there.
        if ["peek", "purge"].contains(&words[0]) && !words.contains(&"--yes") {
            words.push("--yes");
        }
        if ["purge", "inspect"].contains(&words[0]) {
            // Loaded again by an SDK, after the purge before.
            stand.redis.set("production:c_acme", "{}");
            stand
                .redis
                .set("production:c_acme#timestamp", &at(2).to_string());
        }
        if words.contains(&"--skeleton") {
            worker = None;
            stand.queue.send(NEW).await;
        }
        let ran = cli.run(&words, "acme\n").await;
        // What is not recognised is 1 for `peek`.
        let code = i32::from(words[0] == "peek" && !words.contains(&"--skeleton"));
        assert_eq!(ran.code, code, "{line}: {}{}", ran.out, ran.err);
        if words.contains(&"--skeleton") {
            assert!(!ran.out.contains("canary"), "{}", ran.out);
        }
        followed.insert(words[0].to_owned());
    }
    for command in [
        "check", "peek", "curl", "stats", "verify", "inspect", "purge", "explain",
    ] {
        assert!(followed.contains(command), "{PAGE} does not show {command}");
    }
}

fn documents() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
    ]
    .map(repo)
    .into_iter()
    .collect();
    let mut folders = vec![repo("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// The anchors of a document, as GitHub makes them of its headings.
fn anchors(path: &Path) -> HashSet<String> {
    let text = fs::read_to_string(path).unwrap();
    let prose = text.split("```").step_by(2).collect::<String>();
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    let mut anchors = HashSet::new();
    for heading in headings {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        let anchor = kept.collect::<String>().replace(' ', "-");
        let repeated = (1..).map(|number| format!("{anchor}-{number}"));
        let anchor = std::iter::once(anchor.clone())
            .chain(repeated)
            .find(|anchor| !anchors.contains(anchor));
        anchors.extend(anchor);
    }
    anchors
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let mut links = 0;
    let mut broken = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).unwrap();
        let prose = text.split("```").step_by(2).collect::<String>();
        for link in prose.split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file.is_empty() {
                true => path.clone(),
                false => path.parent().unwrap().join(file),
            };
            let is_there =
                target.exists() && (anchor.is_empty() || anchors(&target).contains(anchor));
            if !is_there {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(links > 50, "only {links}");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
