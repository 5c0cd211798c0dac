//! The invariants of the design, read from the sources as text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use testkit::repo;

struct Source {
    /// Below src/ or core/src/, such as `queue/sqs.rs`.
    path: String,
    /// Without its tests.
    code: String,
}

impl Source {
    /// Numbered lines that are no comments.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self
            .code
            .lines()
            .enumerate()
            .map(|(number, line)| (number + 1, line));
        lines.filter(|(_, line)| {
            !line.trim_start().starts_with("//") && !line.trim_start().starts_with("--")
        })
    }

    fn is_below(&self, module: &str) -> bool {
        self.path == format!("{module}.rs") || self.path.starts_with(&format!("{module}/"))
    }
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in [repo("src"), repo("core/src")] {
        collect(&folder, &folder, &mut sources);
    }
    assert!(sources.len() > 30, "only {} sources", sources.len());
    sources
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, sources);
            continue;
        }
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let is_code = [".rs", ".lua"].iter().any(|ending| name.ends_with(ending));
        if !is_code || name.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let tests = lines.windows(2).position(|pair| {
            pair[0].trim() == "#[cfg(test)]" && pair[1].trim().starts_with("mod tests")
        });
        let code = lines[..tests.unwrap_or(lines.len())].join("\n");
        sources.push(Source { path: name, code });
    }
}

/// Whether a line uses this name as a whole word.
fn uses(line: &str, word: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (
            line[..start].bytes().last(),
            line[start + word.len()..].bytes().next(),
        );
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// Whether this stands between quotes.
fn is_in_text(line: &str, part: &str) -> bool {
    line.match_indices(part)
        .any(|(start, _)| line[..start].matches(['"', '\'']).count() % 2 == 1)
}

/// Fails with every place outside `allowed` at which `is_found` is true.
fn only_in(what: &str, allowed: impl Fn(&Source) -> bool, is_found: impl Fn(&str) -> bool) {
    let mut found = Vec::new();
    for source in sources().iter().filter(|source| !allowed(source)) {
        let lines = source.lines().filter(|(_, line)| is_found(line));
        found.extend(
            lines.map(|(number, line)| format!("src/{}:{number}: {}", source.path, line.trim())),
        );
    }
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn each_library_is_known_to_one_module() {
    for (library, modules) in [
        ("aws_sdk_sqs", &["queue"][..]),
        ("fred", &["store"]),
        ("actix_web", &["server"]),
        ("sentry", &["telemetry"]),
        ("envy", &["config"]),
        ("clap", &["main", "commands"]),
    ] {
        let uses_library = |line: &str| {
            line.contains(&format!("{library}::")) || uses(line, &format!("use {library}"))
        };
        only_in(
            &format!("{library} is for {modules:?} alone"),
            |source| modules.iter().any(|module| source.is_below(module)),
            uses_library,
        );
        let users = sources()
            .into_iter()
            .filter(|source| source.lines().any(|(_, line)| uses_library(line)));
        assert!(users.count() > 0, "nobody uses {library}");
    }
}

#[test]
fn the_environment_is_read_by_config_alone() {
    only_in(
        "the environment is for config alone",
        |source| source.is_below("config"),
        |line| {
            // Arguments are no environment.
            let line = line.replace("std::env::args_os()", "");
            line.contains("std::env") || line.contains("env::var") || line.contains("env::vars")
        },
    );
}

/// `#timestamp`, `:c_` and their like, in a string.
#[test]
fn keys_are_spelt_in_one_place() {
    let parts = [
        ":c_",
        ":r_",
        ":f_",
        ":credit_",
        ":metadata",
        "#timestamp",
        "#purged",
        ":dead-letter",
    ];
    only_in(
        "keys are for keys.rs alone",
        |source| source.path == "keys.rs",
        // The text of `--help` may name a key.
        |line| {
            parts.iter().any(|part| is_in_text(line, part))
                && !line.contains("<prefix>:dead-letter")
        },
    );
    let keys = sources()
        .into_iter()
        .find(|source| source.path == "keys.rs")
        .unwrap();
    for part in parts {
        assert!(keys.code.contains(part), "keys.rs does not spell {part}");
    }
}

#[test]
fn scripts_take_every_key_from_their_caller() {
    let scripts: Vec<Source> = sources()
        .into_iter()
        .filter(|source| source.path.ends_with(".lua"))
        .collect();
    assert!(!scripts.is_empty());
    for script in scripts {
        for (number, line) in script.lines() {
            for (at, _) in line.match_indices("redis.call(") {
                let call = &line[at + "redis.call(".len()..];
                // What docs/operations.md has people permit, and the error on a renamed command names.
                let command = call.split('\'').nth(1);
                let known = ["GET", "MGET", "SET", "DEL"];
                assert!(
                    command.is_some_and(|command| known.contains(&command)),
                    "src/{}:{number}: {command:?}",
                    script.path
                );
                let key = call
                    .split_once(',')
                    .map_or("", |(_, rest)| rest.trim_start());
                // `put` is given a key by its callers, which take it from KEYS; they are checked below.
                let ok = ["KEYS[", "unpack(KEYS", "key,"]
                    .iter()
                    .any(|start| key.starts_with(start));
                assert!(ok, "src/{}:{number}: {}", script.path, line.trim());
            }
            if let Some((_, key)) = line
                .trim()
                .split_once("put(")
                .filter(|(before, _)| !before.contains("function"))
            {
                assert!(
                    key.starts_with("KEYS["),
                    "src/{}:{number}: {}",
                    script.path,
                    line.trim()
                );
            }
            assert!(
                !line.contains(".. '") && !line.contains(".. \""),
                "a key is put together: {line}"
            );
        }
    }
}

#[test]
fn what_a_message_means_is_worked_out_without_io() {
    let pure = ["message", "keys", "plan", "reader", "health"];
    for source in sources()
        .iter()
        .filter(|source| pure.iter().any(|module| source.is_below(module)))
    {
        for (number, line) in source.lines() {
            // A clock is no I/O, and this one can be stopped by tests.
            let line = line.replace("tokio::time::Instant", "");
            // Unpacking reads from memory.
            let line = line.replace("use std::io::Read;", "");
            for word in [
                "async",
                "await",
                "tokio",
                "std::net",
                "std::fs",
                "std::io",
                "std::process",
                "std::env",
            ] {
                assert!(
                    !uses(&line, word),
                    "src/{}:{number}: {}",
                    source.path,
                    line.trim()
                );
            }
        }
    }
}

/// What the compiler holds: without a runtime, a client or a server among them, nothing in `core` can wait or connect.
#[test]
fn the_rules_depend_on_no_runtime() {
    let manifest = fs::read_to_string(repo("core/Cargo.toml")).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    let names = dependencies
        .lines()
        .filter_map(|line| line.split(['=', ' ']).next())
        .filter(|name| !name.is_empty());
    let known = [
        "base64",
        "flate2",
        "itoa",
        "serde",
        "serde_json",
        "serde_path_to_error",
        "thiserror",
        "time",
    ];
    for name in names {
        assert!(known.contains(&name), "core depends on {name}");
    }
}

#[test]
fn nothing_but_app_knows_who_works_and_who_serves() {
    for (module, users) in [
        ("consumer", &["app", "serve", "consumer", "pool"][..]),
        ("pool", &["app", "pool"]),
        // main asks it for the health check.
        ("server", &["app", "serve", "server", "main"]),
    ] {
        only_in(
            &format!("{module} is for {users:?} alone"),
            |source| users.iter().any(|user| source.is_below(user)),
            |line| {
                line.contains(&format!("crate::{module}"))
                    || line.contains(&format!("super::{module}"))
            },
        );
    }
}

#[test]
fn there_are_no_globals() {
    only_in(
        "no globals",
        |_| false,
        |line| {
            let line = line
                .trim_start()
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ");
            line.starts_with("static ")
                || line.contains("thread_local!")
                || line.contains("lazy_static!")
        },
    );
    for cell in ["OnceLock", "OnceCell", "LazyLock"] {
        only_in("no globals", |_| false, |line| uses(line, cell));
    }
}

#[test]
fn nothing_is_left_undone_and_nothing_unwrapped() {
    only_in(
        "nothing is left undone",
        |_| false,
        |line| {
            ["TODO", "FIXME", "XXX", "todo!", "unimplemented!", "dbg!"]
                .iter()
                .any(|mark| line.contains(mark))
        },
    );
    only_in(
        "nothing is unwrapped",
        |_| false,
        |line| line.contains(".unwrap()"),
    );
    for source in sources() {
        let comments = source
            .code
            .lines()
            .filter(|line| line.trim_start().starts_with("//"));
        for line in comments {
            assert!(
                !line.contains("TODO") && !line.contains("FIXME"),
                "src/{}: {line}",
                source.path
            );
        }
    }
}

#[test]
fn files_stay_small() {
    for source in sources() {
        let lines = source.code.lines().count();
        assert!(
            lines < 350,
            "src/{} has {lines} lines before its tests",
            source.path
        );
    }
}

/// A body is a field named so; no log line may have it among its values.
#[test]
fn no_log_line_names_a_body() {
    for source in sources() {
        for (at, _) in source.code.match_indices("tracing::") {
            let call = &source.code[at..];
            if !["error!", "warn!", "info!", "debug!", "trace!"]
                .iter()
                .any(|name| call["tracing::".len()..].starts_with(name))
            {
                continue;
            }
            let call = &call[..call.find(");").unwrap_or(call.len())];
            // The shape of a body holds nothing of what it says.
            let call = call.replace("message::skeleton(&held.body)", "");
            assert!(!call.contains(".body"), "src/{}: {call}", source.path);
        }
    }
}

/// Top-level modules, and those that each of them uses. Tests within a file may look anywhere.
#[test]
fn no_module_is_used_by_what_it_uses() {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let top = |path: &str| {
        let first = path.split('/').next().unwrap();
        first.trim_end_matches(".rs").to_owned()
    };
    for source in sources() {
        // The program is put together in these.
        let module = top(&source.path);
        if ["lib", "main", "serve", "help", "commands"].contains(&module.as_str()) {
            continue;
        }
        let code = source.code.split("#[cfg(test)]").next().unwrap();
        for part in code.split("crate::").skip(1) {
            let end = part.find(|it: char| !it.is_ascii_alphanumeric() && it != '_');
            let used = part[..end.unwrap_or(part.len())].to_owned();
            if used != module && !used.is_empty() && used.starts_with(char::is_lowercase) {
                uses.entry(module.clone()).or_default().insert(used);
            }
        }
    }
    assert!(uses.len() > 10, "the sources are not read: {uses:?}");
    // What uses nothing that is left, or is used by nothing that is left, is in no circle.
    loop {
        let left: BTreeSet<String> = uses.keys().cloned().collect();
        let before = left.len();
        uses.retain(|_, used| {
            used.retain(|it| left.contains(it));
            !used.is_empty()
        });
        if uses.len() == before {
            break;
        }
    }
    assert!(
        uses.is_empty(),
        "modules that use each other in a circle, or are used by one: {uses:?}"
    );
}
