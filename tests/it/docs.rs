//! What is written down is what the program does: variables, probes, metrics.

use std::fs;

use entitlement_sync::config::{Need, VARIABLES};

use crate::stand::{SOON, Stand};
use crate::support::{repo, until};

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
        .always("ReceiveMessage", crate::support::Fault::throttle());
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
