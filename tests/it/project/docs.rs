//! What is written down is what the program does: variables, probes, metrics.

use std::fs;
use std::path::{Path, PathBuf};

use entitlement_sync::config::{Need, VARIABLES};

use crate::stand::{SOON, Stand};
use testkit::{repo, until};

fn text(path: &str) -> String {
    fs::read_to_string(repo(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The README's table of variables, its head left out.
fn rows(readme: &str) -> Vec<&str> {
    let (_, rest) = readme
        .split_once("<!-- variables:begin -->")
        .expect("the table begins");
    let (table, _) = rest
        .split_once("<!-- variables:end -->")
        .expect("the table ends");
    table
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect()
}

#[test]
fn the_readme_lists_the_variables_as_they_are() {
    let readme = text("README.md");
    let expected: Vec<String> = VARIABLES
        .iter()
        .map(|variable| {
            let cell = match variable.need {
                Need::Required => "**required**".to_owned(),
                Need::Default(default) => format!("`{default}`"),
                Need::Optional => String::new(),
                Need::Alias(of) => format!("as `{of}`"),
            };
            format!("| `{}` | {cell} | {} |", variable.name, variable.about)
        })
        .collect();
    assert_eq!(rows(&readme), expected);
}

#[test]
fn the_example_environment_lists_the_variables_as_they_are() {
    let expected: String = VARIABLES
        .iter()
        .map(|variable| {
            let line = match variable.need {
                Need::Required => format!("{}={}", variable.name, variable.example),
                Need::Default(default) => format!("{}={default}", variable.name),
                Need::Optional | Need::Alias(_) => format!("# {}=", variable.name),
            };
            format!("# {}\n{line}\n", variable.about)
        })
        .collect();
    let found = text(".env.example");
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.trim_end(), expected.trim_end());
}

/// Whatever of a section stands in backquotes and begins like this.
fn quoted<'a>(section: &'a str, start: &str) -> Vec<&'a str> {
    section
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|quoted| quoted.starts_with(start))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_readme_shows_the_answers_of_the_probes() {
    let readme = text("README.md");
    let (_, section) = readme
        .split_once("\n## Probes\n")
        .expect("a section on probes");
    let section = section.split("\n## ").next().unwrap();
    let bodies = quoted(section, "{");
    assert!(bodies.len() >= 4, "{bodies:?}");

    let stand = Stand::start().await;
    stand
        .calls
        .always("ReceiveMessage", testkit::Fault::throttle());
    let worker = stand
        .worker()
        .env("CONSUMERS", 10)
        .env("MIN_POLLERS", 10)
        .spawn();
    let mut shown = Vec::new();
    let mut show = async |path: &str, condition: &str| {
        until(&format!("{path} shows {condition}"), SOON, async || {
            let reply = worker.try_http(path).await;
            reply.is_ok_and(|reply| reply.body.contains(condition))
        })
        .await;
        shown.push(worker.http(path).await.body);
    };
    show("/livez", "UP").await;
    show("/readyz", r#""redis":"CONNECTED""#).await;
    stand.calls.clear("ReceiveMessage");
    show("/readyz", "\"consumers\":10").await;
    show("/readyz?verbose", "ready: 10").await;
    stand.redis.kill();
    show("/readyz", "DISCONNECTED").await;

    let said = |part: &str| {
        shown
            .iter()
            .any(|shown| shown == part || shown.trim_end() == part)
    };
    for body in bodies {
        // Only a process that cannot recover says so; none is at hand.
        if body != r#"{"status":"DOWN"}"# {
            assert!(said(body), "no probe says {body}: {shown:#?}");
        }
    }
    for body in &shown {
        assert!(
            section.contains(body.trim_end()),
            "the README does not show {body}"
        );
    }
    assert!(said(quoted(section, "ready: ")[0]), "{shown:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_exposed_with_its_help() {
    // As src/metrics.rs registers them: `field "name" "help"`.
    let source = text("src/metrics.rs");
    let (_, table) = source
        .split_once("register! {")
        .expect("the table of metrics");
    let (table, _) = table.split_once("\n        }").unwrap();
    let named: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.contains('"'))
        .map(|line| line.split('"').collect())
        .collect();
    assert!(named.len() > 20, "{named:?}");
    let stand = Stand::start().await;
    let worker = stand.worker().start().await;
    let reply = worker.http("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(
        reply
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    assert!(reply.body.ends_with("# EOF\n"));
    for parts in named {
        let (name, help) = (parts[1], parts[3]);
        let unit = if parts[4].contains("Seconds") {
            "_seconds"
        } else {
            ""
        };
        let line = format!("# HELP entitlement_sync_{name}{unit} {help}.\n");
        assert!(reply.body.contains(&line), "not exposed: {line}");
        // Each has a value from the start, so that the first event is seen as a change.
        let value = format!("\nentitlement_sync_{name}{unit}");
        assert!(reply.body.contains(&value), "without a value: {name}");
    }
}

/// Files with an ending in a folder and the folders in it.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.to_str().unwrap().ends_with(ending) {
            found.push(path);
        }
    }
    found
}

/// A line that is quoted must be one that the program can say, word for word.
#[test]
fn the_runbooks_quote_lines_that_are_in_the_program() {
    let sources: String = [repo("src"), repo("core/src")]
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    // Texts that are written in several lines.
    let sources: String = sources.split("\\\n").map(str::trim_start).collect();
    let mut quoted = 0;
    for path in files(&repo("docs/runbooks"), ".md") {
        let page = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().display();
        for line in page.lines().filter(|line| line.starts_with("{\"level\"")) {
            let said: serde_json::Value = serde_json::from_str(line)
                .unwrap_or_else(|error| panic!("{name}: {error} in {line}"));
            for field in ["message", "advice"] {
                if let Some(text) = said[field].as_str() {
                    assert!(sources.contains(text), "{name}: nothing says {text:?}");
                    quoted += 1;
                }
            }
        }
    }
    assert!(quoted > 10, "only {quoted} lines are quoted");
}

/// What the page quotes as seen is what the program can say; `…` is what differs.
#[test]
fn the_page_on_troubleshooting_quotes_what_is_in_the_program() {
    let sources: String = [repo("src"), repo("core/src")]
        .iter()
        .flat_map(|folder| files(folder, ".rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let page = text("docs/troubleshooting.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let mut quoted = 0;
    for row in rows {
        let seen = row.split(" | ").next().unwrap();
        for text in seen.split('`').skip(1).step_by(2) {
            // Of the system's, not ours.
            if text == "Permission denied" {
                continue;
            }
            for part in text.split('…').map(str::trim).filter(|part| part.len() > 4) {
                assert!(sources.contains(part), "nothing says {part:?}");
                quoted += 1;
            }
        }
    }
    assert!(quoted > 40, "only {quoted} texts are quoted");
    assert!(text("README.md").contains("(docs/troubleshooting.md)"));
}

/// Each page shows what was seen, and not only what to look for.
#[test]
fn each_runbook_was_walked() {
    for path in files(&repo("docs/runbooks"), ".md") {
        let page = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "README.md" {
            continue;
        }
        let (_, walked) = page
            .split_once("\nWalked with ")
            .unwrap_or_else(|| panic!("{name} was not walked"));
        let walked = walked.split("\n## ").next().unwrap();
        assert!(
            walked.contains("\n```console\n$ ") || walked.contains("\n```json\n{"),
            "{name} shows no output"
        );
    }
}

/// The pauses of consumers, half of the first to the whole of the longest, and how often the queue is asked.
#[test]
fn the_page_on_reliability_has_the_times_of_the_program() {
    let page = text("docs/reliability.md");
    let backoff = text("src/consumer/backoff.rs");
    let (bounds, _) = backoff.split_once("#[cfg(test)]").unwrap();
    let seconds = |text: &str| -> f64 {
        let digits = text.split(')').next().unwrap().replace('_', "");
        digits.parse::<f64>().unwrap() / 1000.0
    };
    let mut found = 0;
    for pair in bounds.split("(ms(").skip(1) {
        let (base, most) = pair.split_once(", ms(").unwrap();
        let range = format!("{} s to {} s", seconds(base) / 2.0, seconds(most));
        assert!(page.contains(&range), "docs/reliability.md has no {range}");
        found += 1;
    }
    assert_eq!(found, 3);
    assert!(
        text("src/queue/settings.rs")
            .contains("REFRESH_INTERVAL: Duration = Duration::from_secs(60);")
    );
    assert!(page.contains("asked for at start and\n   once a minute;"));
}
