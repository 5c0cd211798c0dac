//! `snapshot inspect` and `snapshot verify`, as an operator calls them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{KEY, OTHER_KEY, last, open, snapshot, write};

struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(arguments: &[&str], file: &Path, env: &[(&str, &str)]) -> Done {
    let done = Command::new(env!("CARGO_BIN_EXE_entitlement-sync"))
        .arg("snapshot")
        .args(arguments)
        .arg(file)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap();
    Done {
        code: done.status.code().unwrap(),
        stdout: String::from_utf8(done.stdout).unwrap(),
        stderr: String::from_utf8(done.stderr).unwrap(),
    }
}

const WITH_KEY: [(&str, &str); 1] = [("SNAPSHOT_KEY", KEY)];

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let one = open(folder.path());
    write(&one, &["customer-1"]);
    snapshot(&one, &["customer-1", "customer-2"]);
    write(&one, &["customer-3"]);
    write(&one, &["customer-4"]);
    folder
}

fn json(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", done.stdout))
}

#[test]
fn inspect_shows_header_and_counts_and_with_the_key_whether_a_file_is_whole() {
    let folder = folder();
    let file = last(folder.path(), "snapshot");
    for (env, state) in [(&[][..], "not_checked"), (&WITH_KEY, "whole")] {
        let done = run(&["inspect", "--json"], &file, env);
        assert_eq!(done.code, 0, "{}", done.stderr);
        let shown = json(&done);
        assert_eq!(shown["state"], state);
        assert_eq!(shown["kind"], "snapshot");
        assert_eq!(shown["prefix"], "production");
        assert_eq!(
            (&shown["number"], &shown["covers_journals_to"]),
            (&1.into(), &1.into())
        );
        assert_eq!((&shown["records"], &shown["parts"]), (&2.into(), &1.into()));
        assert!((0..600).contains(&shown["age_secs"].as_i64().unwrap()));
        assert_eq!(shown["size_bytes"], fs::metadata(&file).unwrap().len());
        let text = run(&["inspect"], &file, env);
        assert_eq!(text.code, 0);
        for part in ["snapshot 1, format version 1", "production", "up to 1"] {
            assert!(text.stdout.contains(part), "{}", text.stdout);
        }
        let is_whole = text.stdout.contains("whole     yes");
        assert_eq!(is_whole, state == "whole", "{}", text.stdout);
        for output in [done.stdout, text.stdout, text.stderr] {
            assert!(!output.contains("customer-") && !output.contains(KEY));
        }
    }
    // What is damaged behind the header is seen with the key alone.
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len() - 60;
    bytes[end] ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_eq!(run(&["inspect"], &file, &[]).code, 0);
    let done = run(&["inspect", "--json"], &file, &WITH_KEY);
    assert_eq!(
        (done.code, json(&done)["state"].as_str()),
        (1, Some("damaged"))
    );
}

#[test]
fn journals_are_inspected_too_and_a_last_frame_may_be_cut() {
    let folder = folder();
    let file = last(folder.path(), "journal");
    let without = json(&run(&["inspect", "--json"], &file, &[]));
    assert_eq!(
        (&without["records"], &without["parts"]),
        (&Value::Null, &2.into())
    );
    let with = json(&run(&["inspect", "--json"], &file, &WITH_KEY));
    assert_eq!(
        (&with["records"], &with["follows_journal"]),
        (&2.into(), &1.into())
    );
    assert!(with["newest_at"].as_str().unwrap().ends_with('Z'));
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let cut = run(&["verify", "--json"], &file, &WITH_KEY);
    assert_eq!(
        (cut.code, json(&cut)["state"].as_str()),
        (0, Some("last_frame_cut"))
    );
    assert_eq!(json(&cut)["records"], 1);
}

#[test]
fn verify_says_by_its_exit_code_whether_a_file_is_whole() {
    let folder = folder();
    let file = last(folder.path(), "snapshot");
    let secret = folder.path().join("secret");
    fs::write(&secret, format!("{KEY}\n")).unwrap();
    let secret = secret.to_str().unwrap();
    for env in [
        [("SNAPSHOT_KEY", KEY)],
        [("MEM_ENCRYPTION_KEY", KEY)],
        [("SNAPSHOT_KEY_PREVIOUS", KEY)],
        [("SNAPSHOT_KEY_FILE", secret)],
        [("SNAPSHOT_KEY_PREVIOUS_FILE", secret)],
    ] {
        let done = run(&["verify"], &file, &env);
        assert_eq!(done.code, 0, "{env:?}: {}{}", done.stdout, done.stderr);
    }
    for (env, said) in [
        (&[][..], "the key is needed"),
        (&[("SNAPSHOT_KEY", OTHER_KEY)], "written with another key"),
        (&[("SNAPSHOT_KEY", "weak")], "SNAPSHOT_KEY is too short"),
        (&[("SNAPSHOT_KEY_FILE", "/nowhere")], "SNAPSHOT_KEY_FILE is"),
    ] {
        let done = run(&["verify"], &file, env);
        assert_eq!(done.code, 78, "{env:?}");
        assert!(done.stderr.contains(said), "{}", done.stderr);
        assert!(!done.stderr.contains(OTHER_KEY) && !done.stderr.contains("weak"));
    }
    let missing = run(&["verify"], &folder.path().join("none"), &WITH_KEY);
    assert_eq!(missing.code, 66, "{}", missing.stderr);
    let bytes = fs::read(&file).unwrap();
    for content in [
        &b""[..],
        b"DMP1 of another program",
        &bytes[..bytes.len() - 1],
    ] {
        fs::write(&file, content).unwrap();
        let done = run(&["verify"], &file, &WITH_KEY);
        assert_eq!(done.code, 1, "{}", done.stderr);
        assert!(done.stdout.contains("whole     NO: it "), "{}", done.stdout);
    }
}
