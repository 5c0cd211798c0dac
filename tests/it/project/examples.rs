//! The environments of `examples/`: the worker starts with each of them.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use entitlement_sync::config::VARIABLES;
use serde_json::Value;

use testkit::repo;

type Environment = BTreeMap<String, String>;

/// A value for any secret: 32 bytes in base64, as SNAPSHOT_KEY must be.
const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn text(path: &str) -> String {
    fs::read_to_string(repo(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Expects that `config` accepts the environment as it is and shows each of its plain values.
fn accepts(what: &str, environment: &Environment) {
    let output = Command::new(env!("CARGO_BIN_EXE_entitlement-sync"))
        .arg("config")
        .env_clear()
        .envs(environment)
        .output()
        .unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(0), "{what}: {stderr}");
    assert!(!stdout.contains("warning"), "{what}: {stdout}");
    for (name, value) in environment {
        let secret = VARIABLES
            .iter()
            .any(|variable| variable.name == name && variable.secret);
        // A value may be shown in other words, so only that the variable counts is asked.
        assert!(
            secret || stdout.contains(name.as_str()),
            "{what}: {name}={value}: {stdout}"
        );
    }
}

#[test]
fn the_worker_accepts_the_task_definitions_of_ecs() {
    for name in ["task-definition.json", "task-definition-memory.json"] {
        accepts(name, &of_task(&format!("examples/ecs/{name}")));
    }
}

fn of_task(path: &str) -> Environment {
    let task: Value = serde_json::from_str(&text(path)).unwrap();
    let container = &task["containerDefinitions"][0];
    let named = |list: &Value, field: &str| -> Environment {
        list.as_array()
            .unwrap()
            .iter()
            .map(|entry| {
                (
                    entry["name"].as_str().unwrap().to_owned(),
                    entry[field].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    };
    let mut environment = named(&container["environment"], "value");
    let secrets = named(&container["secrets"], "valueFrom");
    environment.extend(secrets.into_keys().map(|name| (name, SECRET.to_owned())));
    environment
}

#[test]
fn the_worker_accepts_the_config_maps_of_kubernetes() {
    let with_redis = ["SERVER_API_KEY", "REDIS_PASSWORD"];
    let in_memory = [
        "SERVER_API_KEY",
        "READ_API_KEYS",
        "SNAPSHOT_KEY",
        "ADMIN_TOKEN",
    ];
    for (name, secrets) in [
        ("entitlement-sync.yaml", with_redis.as_slice()),
        ("memory.yaml", in_memory.as_slice()),
    ] {
        let objects = text(&format!("examples/kubernetes/{name}"));
        let (_, data) = objects.split_once("\ndata:\n").unwrap();
        let mut environment: Environment = data
            .lines()
            .take_while(|line| line.starts_with("  "))
            .map(|line| {
                let (name, value) = line.trim().split_once(": ").unwrap();
                (name.to_owned(), value.trim_matches('"').to_owned())
            })
            .collect();
        assert!(environment.len() >= 5, "{environment:?}");
        for secret in secrets {
            assert!(
                objects.contains(&format!("key: {secret}\n")),
                "{name}: {secret}"
            );
            environment.insert((*secret).to_owned(), SECRET.to_owned());
        }
        accepts(name, &environment);
    }
}

#[test]
fn the_worker_accepts_the_environment_of_systemd() {
    let credentials = tempfile::tempdir().unwrap();
    let unit = text("examples/systemd/entitlement-sync.service");
    let set = unit
        .lines()
        .filter_map(|line| line.strip_prefix("Environment="))
        .flat_map(str::split_whitespace);
    let file = text("examples/systemd/environment");
    let environment: Environment = file
        .lines()
        .chain(set)
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap();
            if let Some(credential) = value.strip_prefix("%d/") {
                let path = credentials.path().join(credential);
                fs::write(&path, "secret\n").unwrap();
                return (name.to_owned(), path.to_str().unwrap().to_owned());
            }
            (name.to_owned(), value.to_owned())
        })
        .collect();
    accepts("examples/systemd", &environment);
}
