//! The ways to Redis, and what contradicts them.

use std::fs;

use crate::config::tests::{errors, load};
use crate::config::{Config, Uses};

const TAG: (&str, &str) = ("ENVIRONMENT_PREFIX", "{production}");

/// How the start-up line tells it, and its mode.
fn told(more: &[(&str, &str)]) -> (String, &'static str) {
    let redis = load(more)
        .unwrap_or_else(|error| panic!("{more:?}: {error}"))
        .redis;
    (
        redis.as_ref().unwrap().to_string(),
        redis.as_ref().unwrap().topology.name(),
    )
}

#[test]
fn each_topology_has_its_variables() {
    for (more, line, mode) in [
        (&[("REDIS_HOST", "a:7000")][..], "a:7000/0", "standalone"),
        (
            &[("REDIS_MODE", "standalone")],
            "redis.internal:6379/0",
            "standalone",
        ),
        (
            &[("REDIS_HOST", "a:1, b"), ("REDIS_PORT", "7"), TAG],
            "cluster a:1,b:7",
            "cluster",
        ),
        (
            &[("REDIS_MODE", "cluster"), TAG],
            "cluster redis.internal:6379",
            "cluster",
        ),
        (
            &[
                ("REDIS_HOST", ""),
                ("REDIS_SENTINEL_HOSTS", "a,b:2"),
                ("REDIS_SENTINEL_MASTER", "mymaster"),
                ("REDIS_DB", "4"),
            ],
            "mymaster/4 by sentinels a:26379,b:2",
            "sentinel",
        ),
        (
            &[("REDIS_HOST", ""), ("REDIS_URL", "redis://:canary@h:1/2")],
            "h:1/2",
            "standalone",
        ),
        (
            &[
                ("REDIS_HOST", ""),
                ("REDIS_URL", "unix:///run/r.sock"),
                ("REDIS_DB", "2"),
            ],
            "/run/r.sock database 2",
            "unix",
        ),
        (
            &[
                ("REDIS_HOST", ""),
                ("REDIS_URL", "rediss-cluster://h:1?node=i:2"),
                TAG,
            ],
            "cluster h:1,i:2",
            "cluster",
        ),
        (
            &[
                ("REDIS_HOST", ""),
                ("REDIS_URL", "redis://h:1"),
                ("REDIS_MODE", "cluster"),
                TAG,
            ],
            "cluster h:1",
            "cluster",
        ),
        (
            &[
                ("REDIS_HOST", ""),
                (
                    "REDIS_URL",
                    "redis-sentinel://a:1/3?sentinelServiceName=m&sentinelPassword=canary",
                ),
            ],
            "m/3 by sentinels a:1",
            "sentinel",
        ),
        // Equal values do not contradict each other.
        (
            &[
                ("REDIS_HOST", "h"),
                ("REDIS_PORT", "1"),
                ("REDIS_DB", "2"),
                ("REDIS_TLS", "0"),
                ("REDIS_URL", "redis://h:1/2"),
            ],
            "h:1/2",
            "standalone",
        ),
        // What Kubernetes injects is not what someone set.
        (
            &[
                ("REDIS_HOST", ""),
                ("REDIS_PORT", "tcp://10.0.0.7:6379"),
                ("REDIS_URL", "redis://h:1"),
            ],
            "h:1/0",
            "standalone",
        ),
    ] {
        assert_eq!(told(more), (line.to_owned(), mode), "{more:?}");
    }
}

#[test]
fn contradictions_name_both_variables() {
    let sentinels = ("REDIS_SENTINEL_HOSTS", "a,b");
    let master = ("REDIS_SENTINEL_MASTER", "m");
    let url = ("REDIS_URL", "redis://u:canary@h:1/2");
    let none = ("REDIS_HOST", "");
    let tls = ("REDIS_TLS", "1");
    for (more, one, other) in [
        (&[url][..], "REDIS_HOST", "REDIS_URL"),
        (&[none, url, sentinels], "REDIS_SENTINEL_HOSTS", "REDIS_URL"),
        (&[none, url, ("REDIS_PORT", "2")], "REDIS_PORT", "REDIS_URL"),
        (&[none, url, ("REDIS_DB", "0")], "REDIS_DB", "REDIS_URL"),
        (&[none, url, tls], "REDIS_TLS", "REDIS_URL"),
        (&[none, url, ("REDIS_USER", "v")], "REDIS_USER", "REDIS_URL"),
        (
            &[none, url, ("REDIS_PASSWORD", "canary")],
            "REDIS_PASSWORD",
            "REDIS_URL",
        ),
        (
            &[none, url, ("REDIS_MODE", "sentinel")],
            "REDIS_MODE",
            "REDIS_URL",
        ),
        (
            &[none, url, master],
            "REDIS_SENTINEL_MASTER",
            "REDIS_SENTINEL_HOSTS",
        ),
        (
            &[none, ("REDIS_URL", "rediss://h"), ("REDIS_TLS", "0")],
            "REDIS_TLS",
            "REDIS_URL",
        ),
        (&[sentinels, master], "REDIS_SENTINEL_HOSTS", "REDIS_HOST"),
        (
            &[none, sentinels],
            "REDIS_SENTINEL_MASTER",
            "REDIS_SENTINEL_HOSTS",
        ),
        (
            &[none, sentinels, master, ("REDIS_MODE", "cluster")],
            "REDIS_MODE",
            "REDIS_SENTINEL_HOSTS",
        ),
        (
            &[none, sentinels, master, ("REDIS_SENTINEL_USER", "u")],
            "REDIS_SENTINEL_PASSWORD",
            "REDIS_SENTINEL_USER",
        ),
        (
            &[("REDIS_SENTINEL_USER", "u")],
            "REDIS_SENTINEL_USER",
            "REDIS_SENTINEL_HOSTS",
        ),
        (
            &[("REDIS_MODE", "sentinel")],
            "REDIS_MODE",
            "REDIS_SENTINEL_HOSTS",
        ),
        (
            &[("REDIS_HOST", "a,b"), ("REDIS_MODE", "standalone"), TAG],
            "REDIS_MODE",
            "REDIS_HOST",
        ),
        (
            &[("REDIS_HOST", "a:1"), ("REDIS_PORT", "2")],
            "REDIS_PORT",
            "REDIS_HOST",
        ),
        (&[("REDIS_HOST", "a,b")], "ENVIRONMENT_PREFIX", "REDIS_HOST"),
        (
            &[("REDIS_MODE", "cluster"), ("REDIS_DB", "1"), TAG],
            "REDIS_DB",
            "REDIS_MODE",
        ),
        (
            &[("REDIS_HOST", "a,b"), ("REDIS_DB", "1"), TAG],
            "REDIS_DB",
            "REDIS_HOST",
        ),
        (
            &[("REDIS_TLS_SERVER_NAME", "r")],
            "REDIS_TLS_SERVER_NAME",
            "REDIS_TLS ",
        ),
        (
            &[("REDIS_TLS_INSECURE_SKIP_VERIFY", "1")],
            "REDIS_TLS_INSECURE_SKIP_VERIFY",
            "REDIS_TLS ",
        ),
        (
            &[
                tls,
                ("REDIS_TLS_INSECURE_SKIP_VERIFY", "1"),
                ("REDIS_TLS_SERVER_NAME", "r"),
            ],
            "REDIS_TLS_SERVER_NAME",
            "REDIS_TLS_INSECURE_SKIP_VERIFY",
        ),
        (
            &[tls, none, ("REDIS_URL", "unix:///s")],
            "REDIS_TLS",
            "REDIS_URL",
        ),
        (
            &[tls, ("REDIS_TLS_KEY_FILE", "Cargo.toml")],
            "REDIS_TLS_CERT_FILE",
            "REDIS_TLS_KEY_FILE",
        ),
        (
            &[("REDIS_IAM_CACHE_NAME", "c")],
            "REDIS_IAM_CACHE_NAME",
            "REDIS_IAM_AUTH",
        ),
    ] {
        let errors = errors(more);
        assert!(
            errors
                .iter()
                .any(|error| error.starts_with(one) && error.contains(other)),
            "{more:?}: {errors:?}"
        );
        assert!(
            !errors.iter().any(|error| error.contains("canary")),
            "{errors:?}"
        );
    }
}

#[test]
fn bad_values_are_named() {
    for (more, name, says) in [
        (
            &[("REDIS_MODE", "replica")][..],
            "REDIS_MODE",
            "standalone or sentinel or cluster",
        ),
        (
            &[("REDIS_HOST", "a,b c"), TAG],
            "REDIS_HOST",
            "the host alone",
        ),
        (
            &[("REDIS_HOST", "redis://:canary@h")],
            "REDIS_HOST",
            "REDIS_URL",
        ),
        (
            &[("REDIS_HOST", ""), ("REDIS_URL", "h:1")],
            "REDIS_URL",
            "rediss://",
        ),
        (
            &[("REDIS_HOST", ""), ("REDIS_URL", "redis://h/x")],
            "REDIS_URL",
            "0 to 255",
        ),
        (
            &[("REDIS_WAIT_REPLICAS", "-1")],
            "REDIS_WAIT_REPLICAS",
            "from 0",
        ),
        (
            &[("REDIS_TLS", "1"), ("REDIS_TLS_CA_FILE", "/none")],
            "REDIS_TLS_CA_FILE",
            "cannot be read",
        ),
        (
            &[("REDIS_TLS", "1"), ("REDIS_TLS_SERVER_NAME", "a b")],
            "REDIS_TLS_SERVER_NAME",
            "host name",
        ),
    ] {
        let errors = errors(more);
        assert!(
            errors
                .iter()
                .any(|error| error.starts_with(name) && error.contains(says)),
            "{more:?}: {errors:?}"
        );
        assert!(
            !errors.iter().any(|error| error.contains("canary")),
            "{errors:?}"
        );
    }
    for prefix in ["production", "{}production", "production{", "}p{"] {
        let errors = errors(&[("REDIS_HOST", "a,b"), ("ENVIRONMENT_PREFIX", prefix)]);
        assert!(
            errors[0].contains("={production}") || prefix == "}p{",
            "{errors:?}"
        );
        assert!(errors[0].contains("hash tag"), "{errors:?}");
    }
}

#[test]
fn iam_needs_a_user_tls_and_the_name_of_the_cache() {
    let all = [
        ("REDIS_IAM_AUTH", "1"),
        ("REDIS_IAM_CACHE_NAME", "Cache-1"),
        ("REDIS_USER", "sync"),
        ("REDIS_TLS", "1"),
    ];
    assert!(errors(&all).is_empty());
    for left_out in ["REDIS_IAM_CACHE_NAME", "REDIS_USER", "REDIS_TLS"] {
        let rest: Vec<_> = all
            .iter()
            .copied()
            .filter(|(name, _)| *name != left_out)
            .collect();
        let errors = errors(&rest);
        assert!(
            errors.len() == 1
                && errors[0].contains(left_out)
                && errors[0].contains("REDIS_IAM_AUTH"),
            "{errors:?}"
        );
    }
    let mut with_password = all.to_vec();
    with_password.push(("REDIS_PASSWORD", "canary"));
    assert!(errors(&with_password)[0].contains("password"));
}

#[test]
fn every_secret_can_be_a_file_and_is_redacted_all_the_same() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    for (name, content) in [
        ("SERVER_API_KEY", "canary-1"),
        ("AWS_ACCESS_KEY_ID", "canary-2"),
        ("AWS_SECRET_ACCESS_KEY", "canary-3"),
        ("AWS_SESSION_TOKEN", "canary-4"),
        ("SENTRY_DSN", "https://canary-5@sentry.example.com/1"),
        ("REDIS_PASSWORD", "canary-6"),
        ("REDIS_SENTINEL_PASSWORD", "canary-7"),
        ("REDIS_URL", "redis://:canary-8@h:1"),
    ] {
        let variable = format!("{name}_FILE");
        let path = file(name, &format!("{content}\n"));
        let mut around: Vec<(&str, &str)> = vec![("LOG_LEVEL", "info")];
        match name {
            "SERVER_API_KEY" => around.push(("SERVER_API_KEY", "")),
            "AWS_ACCESS_KEY_ID" => around.push(("AWS_SECRET_ACCESS_KEY", "s")),
            "AWS_SECRET_ACCESS_KEY" => around.push(("AWS_ACCESS_KEY_ID", "a")),
            "AWS_SESSION_TOKEN" => {
                around.extend([("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")]);
            }
            "REDIS_SENTINEL_PASSWORD" => around.extend([
                ("REDIS_HOST", ""),
                ("REDIS_SENTINEL_HOSTS", "a"),
                ("REDIS_SENTINEL_MASTER", "m"),
            ]),
            "REDIS_URL" => around.push(("REDIS_HOST", "")),
            _ => {}
        }
        let with = |value: &str| {
            let mut more = around.clone();
            more.push((&variable, value));
            load(&more)
        };
        let config = with(&path).unwrap_or_else(|error| panic!("{variable}: {error}"));
        use secrecy::ExposeSecret;
        let secrets: Vec<&str> = config
            .log
            .secrets
            .iter()
            .map(|it| it.expose_secret())
            .collect();
        assert!(
            secrets.contains(&content),
            "{variable} is not redacted: {secrets:?}"
        );
        assert!(!format!("{config:?}").contains("canary"), "{variable}");

        let empty = file("empty", "\n");
        for (value, says) in [(empty.as_str(), "is empty"), ("/none", "cannot be read")] {
            let errors = with(value).unwrap_err().0;
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(
                errors[0].starts_with(&variable) && errors[0].contains(says),
                "{errors:?}"
            );
        }
        let mut both = around.clone();
        both.retain(|(known, _)| *known != name);
        both.extend([(name, content), (&variable, &path)]);
        let errors = load(&both).unwrap_err().0;
        assert!(
            errors[0].starts_with(&variable)
                && errors[0].contains(name)
                && !errors[0].contains("canary"),
            "{errors:?}"
        );
    }
}

/// A password that is rotated while the process runs is the next one used.
#[test]
fn files_of_passwords_are_read_again() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("password");
    fs::write(&path, "one\n").unwrap();
    let config = load(&[("REDIS_PASSWORD_FILE", path.to_str().unwrap())]).unwrap();
    let current = || {
        config
            .redis()
            .login
            .current()
            .map(|pair| pair.unwrap().1.unwrap())
    };
    assert_eq!(current().unwrap(), "one");
    fs::write(&path, "two\r\n").unwrap();
    assert_eq!(current().unwrap(), "two");
    fs::remove_file(&path).unwrap();
    assert!(current().unwrap_err().contains("REDIS_PASSWORD_FILE"));

    fs::write(&path, "redis://a:one@h:1").unwrap();
    let config = load(&[
        ("REDIS_HOST", ""),
        ("REDIS_URL_FILE", path.to_str().unwrap()),
    ])
    .unwrap();
    fs::write(&path, "redis://b:two@h:1").unwrap();
    let pair = config.redis().login.current().unwrap().unwrap();
    assert_eq!(pair, (Some("b".into()), Some("two".into())));
}

#[test]
fn a_host_is_not_missed_where_something_stands_in_or_nothing_is_asked_of_redis() {
    let without = |more: &[(&str, &str)], uses: &[Uses]| {
        let more = more
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load_for(more.collect(), uses)
    };
    assert!(without(&[("REDIS_URL", "redis://h")], &[Uses::Redis]).is_ok());
    assert!(without(&[], &[]).is_ok());
    let errors = without(&[], &[Uses::Redis]).unwrap_err().0;
    assert!(
        errors.len() == 1 && errors[0].starts_with("REDIS_HOST"),
        "{errors:?}"
    );
}
