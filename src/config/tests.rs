use super::*;
use secrecy::ExposeSecret;

const MINIMAL: [(&str, &str); 4] = [
    ("AWS_REGION", "eu-west-1"),
    (
        "QUEUE_URL",
        "https://sqs.eu-west-1.amazonaws.com/123456789012/q",
    ),
    ("SERVER_API_KEY", "server-canary"),
    ("REDIS_HOST", "redis.internal"),
];

pub fn load(more: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for (name, value) in MINIMAL.iter().chain(more) {
        variables.retain(|(known, _)| known != name);
        variables.push(((*name).to_owned(), (*value).to_owned()));
    }
    Config::load(variables)
}

pub fn errors(more: &[(&str, &str)]) -> Vec<String> {
    load(more).err().map(|errors| errors.0).unwrap_or_default()
}

#[test]
fn what_is_not_set_has_its_documented_default() {
    let config = load(&[]).unwrap();
    assert_eq!(
        config.queue.endpoint.as_str(),
        "https://sqs.eu-west-1.amazonaws.com/"
    );
    assert!(config.queue.credentials.is_none());
    assert_eq!(
        (
            config.queue.batch_size,
            config.queue.consumers,
            config.queue.min_pollers
        ),
        (1, 10, 1)
    );
    assert_eq!(
        (
            config.queue.max_receive_count,
            config.queue.dead_letter_max_len
        ),
        (5, 1000)
    );
    assert_eq!(config.queue.max_inflight_bytes, None);
    assert!(!config.queue.is_fifo());
    assert_eq!(config.redis().to_string(), "redis.internal:6379/0");
    assert_eq!(config.redis().topology.name(), "standalone");
    assert!(config.redis().login.username.is_none() && config.redis().login.password.is_none());
    assert!(config.redis().tls.is_none() && config.redis().wait_replicas == 0);
    assert_eq!(config.writes.prefix, "production");
    assert_eq!(config.writes.ttl_secs, Some(604_800));
    assert!(!config.writes.update_if_exists);
    assert_eq!(config.writes.lock_retries, 240);
    assert_eq!(config.edge.url.as_str(), "https://edge.api.stigg.io/");
    assert!(matches!(config.sentry, SentryConfig::Remote));
    assert_eq!(
        (config.log.json, config.log.filter.as_str()),
        (None, "warn,fred=error,entitlement_sync=info")
    );
    assert_eq!(
        (config.port, config.shutdown_timeout),
        (4000, Duration::from_secs(8))
    );
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// The defaults in the table are those that are in force.
#[test]
fn the_tables_defaults_are_the_defaults() {
    let defaults: Vec<(&str, &str)> = VARIABLES
        .iter()
        .filter_map(|variable| match variable.need {
            Need::Default(default) => Some((variable.name, default)),
            _ => None,
        })
        .collect();
    let with_defaults = load(&defaults).unwrap();
    assert_eq!(
        format!("{:?}", load(&[]).unwrap()),
        format!("{with_defaults:?}")
    );
    for variable in VARIABLES {
        assert_eq!(
            load(&[(variable.name, "")]).is_ok(),
            variable.need != Need::Required,
            "{}",
            variable.name
        );
    }
}

#[test]
fn every_variable_takes_a_good_value() {
    let config = load(&[
        ("AWS_ACCESS_KEY_ID", "AKIA"),
        ("AWS_SECRET_ACCESS_KEY", " s3cret\n"),
        ("AWS_SESSION_TOKEN", "token"),
        ("AWS_ENDPOINT_URL", "http://all:1"),
        ("AWS_ENDPOINT_URL_SQS", "http://sqs:2"),
        ("AWS_ENDPOINT_URL_STS", "http://sts:3"),
        ("SQS_ROLE_ARN", "arn:aws:iam::123456789012:role/sync"),
        ("SQS_ROLE_EXTERNAL_ID", "agreed"),
        ("HTTPS_PROXY", "https://user:pass@proxy:3128"),
        ("HTTP_PROXY", "proxy:3128"),
        ("NO_PROXY", "localhost"),
        ("QUEUE_URL", "http://localhost:9324/000000000000/q.fifo"),
        ("REDIS_ENVIRONMENT_PREFIX", "staging"),
        ("REDIS_PORT", " 6380 "),
        ("REDIS_DB", "3"),
        ("REDIS_USERNAME", "sync"),
        ("REDIS_PASSWORD", " with a space "),
        ("REDIS_TLS", "TRUE"),
        ("BATCH_SIZE", "10"),
        ("KEYS_TTL_IN_SECS", "-1"),
        ("EDGE_API_URL", "https://edge.example.com/base"),
        ("SENTRY_DSN", "https://key@sentry.example.com/1"),
        ("CACHE_UPDATE_POLICY", "update_if_exists"),
        ("CACHE_LOCK_RETRY_COUNT", "0"),
        ("PORT", "8080"),
        ("CONSUMERS", "40"),
        ("MIN_POLLERS", "2"),
        ("MAX_RECEIVE_COUNT", "3"),
        ("DEAD_LETTER_MAX_LEN", "7"),
        ("MAX_INFLIGHT_BYTES", "33554432"),
        ("SHUTDOWN_TIMEOUT_SECS", "25"),
        ("LOG_FORMAT", "text"),
        ("LOG_LEVEL", "debug"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
    ])
    .unwrap();
    assert_eq!(
        config.traces.as_ref().unwrap().endpoint.as_str(),
        "http://collector:4318/v1/traces"
    );
    let credentials = config.queue.credentials.as_ref().unwrap();
    assert_eq!(credentials.access_key_id.expose_secret(), "AKIA");
    assert_eq!(credentials.secret_access_key.expose_secret(), "s3cret");
    assert_eq!(
        credentials.session_token.as_ref().unwrap().expose_secret(),
        "token"
    );
    assert_eq!(config.queue.endpoint.as_str(), "http://sqs:2/");
    assert!(config.queue.is_fifo());
    assert_eq!(config.queue.sts.as_ref().unwrap().as_str(), "http://sts:3/");
    let role = config.queue.role.clone().unwrap();
    assert_eq!(role.arn, "arn:aws:iam::123456789012:role/sync");
    assert_eq!(role.external_id.as_deref(), Some("agreed"));
    let net = config.edge.net.clone();
    let https = net.https_proxy.unwrap();
    assert_eq!(https.expose_secret(), "https://user:pass@proxy:3128/");
    let http = net.http_proxy.unwrap();
    assert_eq!(http.expose_secret(), "http://proxy:3128/");
    assert!(net.no_proxy.starts_with("localhost,"));
    assert_eq!(config.writes.prefix, "staging");
    assert_eq!(config.redis().to_string(), "redis.internal:6380/3");
    assert!(config.redis().tls.is_some());
    assert_eq!(
        config.redis().login.current().unwrap().unwrap(),
        (Some("sync".into()), Some(" with a space ".into()))
    );
    assert_eq!(
        (
            config.queue.batch_size,
            config.queue.consumers,
            config.queue.min_pollers
        ),
        (10, 40, 2)
    );
    assert_eq!(config.writes.ttl_secs, None);
    assert!(config.writes.update_if_exists);
    assert_eq!(config.writes.lock_retries, 0);
    assert_eq!(config.edge.url.as_str(), "https://edge.example.com/base");
    assert!(
        matches!(&config.sentry, SentryConfig::Dsn(dsn) if dsn.expose_secret().contains("sentry.example"))
    );
    assert_eq!(
        (config.port, config.shutdown_timeout),
        (8080, Duration::from_secs(25))
    );
    assert_eq!(
        (
            config.queue.max_receive_count,
            config.queue.dead_letter_max_len
        ),
        (3, 7)
    );
    assert_eq!(config.queue.max_inflight_bytes, Some(32 << 20));
    assert_eq!(
        (config.log.json, config.log.filter.as_str()),
        (Some(false), "warn,fred=error,entitlement_sync=debug")
    );

    assert_eq!(
        load(&[("AWS_ENDPOINT_URL", "http://all:1")])
            .unwrap()
            .queue
            .endpoint
            .as_str(),
        "http://all:1/"
    );
    assert_eq!(
        load(&[("RUST_LOG", "fred=trace"), ("LOG_LEVEL", "error")])
            .unwrap()
            .log
            .filter,
        "fred=trace"
    );
    assert_eq!(
        load(&[("REDIS_USER", "a"), ("REDIS_PASSWORD", "p")])
            .unwrap()
            .redis()
            .login
            .username
            .as_deref(),
        Some("a")
    );
    assert_eq!(
        load(&[("ENVIRONMENT_PREFIX", "x")]).unwrap().writes.prefix,
        "x"
    );
}

#[test]
fn booleans_take_every_usual_word() {
    for (text, means) in [
        ("0", false),
        ("1", true),
        ("true", true),
        ("False", false),
        ("YES", true),
        ("no", false),
        (" 1 ", true),
        ("on", true),
        ("OFF", false),
        ("", false),
    ] {
        assert_eq!(
            load(&[("REDIS_TLS", text)]).unwrap().redis().tls.is_some(),
            means,
            "{text}"
        );
    }
    assert!(matches!(
        load(&[("DISABLE_SENTRY", "1"), ("SENTRY_DSN", "https://k@h/1")])
            .unwrap()
            .sentry,
        SentryConfig::Off
    ));
}

#[test]
fn every_bad_value_is_named_with_what_to_write_instead() {
    for (name, value, says) in [
        ("QUEUE_URL", "my-queue", "https://host/path"),
        ("QUEUE_URL", "https://user:pass@host/q", "without them"),
        ("AWS_REGION", "us-east-1", "AWS_REGION=eu-west-1"),
        (
            "AWS_ENDPOINT_URL_SQS",
            "localhost:9324",
            "https://host/path",
        ),
        ("AWS_ENDPOINT_URL", "localhost", "https://host/path"),
        ("AWS_ENDPOINT_URL_STS", "localhost", "https://host/path"),
        ("SQS_ROLE_ARN", "sync", "arn:aws:iam::"),
        ("HTTPS_PROXY", "socks5://proxy", "http://host:port"),
        ("HTTP_PROXY", "http://", "http://host:port"),
        ("AWS_CA_BUNDLE", "/nonexistent", "path of a PEM file"),
        ("REDIS_HOST", "redis://redis", "the host alone"),
        ("REDIS_PORT", "0", "from 1 to 65535"),
        ("REDIS_DB", "256", "from 0 to 255"),
        ("REDIS_TLS", "maybe", "0 or 1"),
        ("BATCH_SIZE", "11", "from 1 to 10"),
        ("BATCH_SIZE", "0", "from 1 to 10"),
        ("BATCH_SIZE", "ten", "from 1 to 10"),
        ("KEYS_TTL_IN_SECS", "0", "-1 for no expiry"),
        ("KEYS_TTL_IN_SECS", "7d", "whole number"),
        (
            "CACHE_UPDATE_POLICY",
            "ALWAYS",
            "UPSERT or UPDATE_IF_EXISTS or INVALIDATE",
        ),
        ("CACHE_LOCK_RETRY_COUNT", "-1", "from 0"),
        ("CONSUMERS", "0", "from 1 to 1000"),
        ("MIN_POLLERS", "0", "from 1 to 1000"),
        ("MIN_POLLERS", "11", "more than CONSUMERS (10)"),
        ("MAX_RECEIVE_COUNT", "0", "from 1"),
        ("DEAD_LETTER_MAX_LEN", "0", "from 1"),
        ("MAX_INFLIGHT_BYTES", "1", "from 1048576"),
        ("PORT", "65536", "from 1 to 65535"),
        ("SHUTDOWN_TIMEOUT_SECS", "1", "from 2 to 300"),
        ("EDGE_API_URL", "edge", "https://host/path"),
        ("AWS_REGION", "EU-WEST-1", "for example us-east-1"),
        ("AWS_USE_FIPS_ENDPOINT", "maybe", "0 or 1"),
        (
            "AWS_EC2_METADATA_SERVICE_ENDPOINT",
            "metadata",
            "https://host/path",
        ),
        (
            "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
            "6",
            "IPv4 or IPv6",
        ),
        ("AWS_EC2_METADATA_DISABLED", "1", "true or false"),
        ("QUEUE_URL", "https://host/q?key=canary", "a query"),
        ("EDGE_API_URL", "https://host/#canary", "a fragment"),
        ("HTTPS_PROXY", "http://user:57#canary@proxy:3128", "%23"),
        ("HTTP_PROXY", "http://user:57/canary@proxy:3128", "%2F"),
        ("SENTRY_DSN", "canary-dsn", "https://<key>@<host>/<project>"),
        ("DISABLE_SENTRY", "2", "0 or 1"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "collector:4318",
            "http or https URL",
        ),
        ("LOG_FORMAT", "xml", "json or text"),
        ("LOG_LEVEL", "loud", "error or warn or info"),
        ("RUST_LOG", "a=b=c", "not a log filter"),
    ] {
        let errors = errors(&[(name, value)]);
        assert_eq!(errors.len(), 1, "{name}={value}: {errors:?}");
        assert!(
            errors[0].starts_with(name) && errors[0].contains(says),
            "{}",
            errors[0]
        );
    }
}

#[test]
fn what_contradicts_or_lacks_its_other_half_is_named() {
    for (more, says) in [
        (
            &[
                ("ENVIRONMENT_PREFIX", "a"),
                ("REDIS_ENVIRONMENT_PREFIX", "b"),
            ][..],
            "REDIS_ENVIRONMENT_PREFIX",
        ),
        (
            &[
                ("REDIS_USER", "a"),
                ("REDIS_USERNAME", "b"),
                ("REDIS_PASSWORD", "p"),
            ],
            "REDIS_USERNAME",
        ),
        (&[("REDIS_USER", "a")], "REDIS_PASSWORD"),
        (&[("AWS_ACCESS_KEY_ID", "a")], "AWS_SECRET_ACCESS_KEY"),
        (&[("AWS_SECRET_ACCESS_KEY", "a")], "AWS_ACCESS_KEY_ID"),
        (&[("AWS_SESSION_TOKEN", "a")], "AWS_SESSION_TOKEN"),
        (&[("SQS_ROLE_EXTERNAL_ID", "a")], "SQS_ROLE_ARN"),
    ] {
        let errors = errors(more);
        assert!(errors.len() == 1 && errors[0].contains(says), "{errors:?}");
    }
    assert!(
        errors(&[
            ("ENVIRONMENT_PREFIX", "a"),
            ("REDIS_ENVIRONMENT_PREFIX", "a")
        ])
        .is_empty()
    );
}

#[test]
fn all_errors_come_at_once_and_no_secret_is_in_them() {
    let errors = Config::load(vec![
        ("REDIS_PASSWORD".into(), "canary-password".into()),
        ("AWS_SECRET_ACCESS_KEY".into(), "canary-secret".into()),
        ("SENTRY_DSN".into(), "canary-dsn".into()),
        ("BATCH_SIZE".into(), "99".into()),
    ])
    .unwrap_err();
    for name in [
        "AWS_REGION",
        "QUEUE_URL",
        "SERVER_API_KEY",
        "REDIS_HOST",
        "AWS_ACCESS_KEY_ID",
        "SENTRY_DSN",
        "BATCH_SIZE",
    ] {
        assert!(
            errors.0.iter().any(|error| error.starts_with(name)),
            "{name}: {errors}"
        );
    }
    assert!(!errors.to_string().contains("canary"), "{errors}");
}

#[test]
fn debug_output_holds_no_secret() {
    let secrets: Vec<(&str, &str)> = VARIABLES
        .iter()
        .filter(|variable| variable.secret)
        .filter(|variable| !["SENTRY_DSN", "REDIS_URL"].contains(&variable.name))
        .filter(|variable| !variable.name.starts_with("OTEL_"))
        .filter(|variable| !variable.name.starts_with("REDIS_SENTINEL"))
        .map(|variable| (variable.name, "canary-value-of-many-characters"))
        .collect();
    assert!(secrets.len() >= 4);
    let dsn = ("SENTRY_DSN", "https://canary-value@sentry.example.com/1");
    let more: Vec<_> = secrets
        .into_iter()
        .chain([
            dsn,
            ("LOG_LEVEL", "info"),
            ("SNAPSHOT_PATH", "/data"),
            ("READ_PORT", "4001"),
        ])
        .collect();
    let debug = format!("{:?}", load(&more).unwrap());
    assert!(!debug.contains("canary"), "{debug}");
}

#[test]
fn kubernetes_service_links_are_understood() {
    let linked = load(&[
        ("REDIS_HOST", ""),
        ("REDIS_PORT", "tcp://10.0.0.7:6380"),
        ("REDIS_SERVICE_HOST", "10.0.0.7"),
        ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.7"),
    ])
    .unwrap();
    assert_eq!(linked.redis().to_string(), "10.0.0.7:6380/0");
    assert_eq!(linked.warnings, Vec::<String>::new());
    // Beside another host, the port is not that host's.
    for host in [
        "redis.internal",
        "redis.example.com",
        "10.0.0.8",
        "my-redis",
    ] {
        let own = load(&[("REDIS_HOST", host), ("REDIS_PORT", "tcp://10.0.0.7:6380")]).unwrap();
        let shown = own.redis().to_string();
        if host == "redis.internal" {
            // A service and its namespace.
            assert_eq!(
                (shown.as_str(), own.warnings.len()),
                ("redis.internal:6380/0", 0)
            );
            continue;
        }
        assert_eq!(shown, format!("{host}:6379/0"));
        assert!(
            own.warnings.len() == 1 && own.warnings[0].contains("enableServiceLinks"),
            "{:?}",
            own.warnings
        );
    }
    for host in ["redis", "redis.ns.svc.cluster.local", "10.0.0.7"] {
        let own = load(&[("REDIS_HOST", host), ("REDIS_PORT", "tcp://10.0.0.7:6380")]).unwrap();
        assert_eq!(own.redis().to_string(), format!("{host}:6380/0"));
        assert_eq!(own.warnings, Vec::<String>::new());
    }
    let v6 = load(&[("REDIS_HOST", ""), ("REDIS_PORT", "tcp://[fd00::7]:6380")]).unwrap();
    assert_eq!(v6.redis().to_string(), "[fd00::7]:6380/0");
    // Of other services whose names begin like ours.
    let others = load(&[
        ("REDIS_MASTER_PORT", "tcp://10.0.0.9:6379"),
        ("REDIS_SENTINEL_PORT", "tcp://10.0.0.9:26379"),
        ("REDIS_SENTINEL_SERVICE_PORT_TCP_SENTINEL", "26379"),
        ("REDIS_SENTINEL_PORT_26379_TCP_PROTO", "tcp"),
        ("QUEUE_PORT", "udp://10.0.0.9:53"),
        ("QUEUE_PORT_53_UDP", "udp://10.0.0.9:53"),
        ("CACHE_SERVICE_HOST", "10.0.0.9"),
    ])
    .unwrap();
    assert_eq!(others.warnings, Vec::<String>::new());
    let own = load(&[("REDIS_MASTER_PORT", "6379")]).unwrap();
    assert_eq!(own.warnings.len(), 1, "{:?}", own.warnings);
}

#[test]
fn typos_are_warned_about_with_the_nearest_name() {
    let warnings = load(&[
        ("REDIS_HOTS", "x"),
        ("CONSUMER", "3"),
        ("QUEUE_TIMEOUT", "3"),
        ("AWS_PROFILE", "x"),
        ("AWS_ROLE_ARN", "x"),
        ("ALL_PROXY", "x"),
        ("no_proxy", "x"),
        ("PATH", "/bin"),
        ("HOSTNAME", "pod"),
    ])
    .unwrap()
    .warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].contains("did you mean CONSUMERS?"));
    assert!(warnings[1].starts_with("QUEUE_TIMEOUT") && warnings[1].contains("no effect"));
    assert!(warnings[2].contains("did you mean REDIS_HOST?"));
}

#[test]
fn hazards_are_warned_about() {
    let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")];
    let shadow = (
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "http://169.254.170.23/v1/credentials",
    );
    let warnings = load(&[keys[0], keys[1], shadow]).unwrap().warnings;
    assert!(
        warnings[0].contains("AWS_CONTAINER_CREDENTIALS_FULL_URI"),
        "{warnings:?}"
    );
    assert!(load(&[shadow]).unwrap().warnings.is_empty());
    let warnings = load(&[("SSL_CERT_FILE", "/nonexistent")]).unwrap().warnings;
    assert!(
        warnings[0].contains("every TLS connection will fail"),
        "{warnings:?}"
    );
    let warnings = load(&[("KEYS_TTL_IN_SECS", "604800000")]).unwrap().warnings;
    assert!(warnings[0].contains("seconds"), "{warnings:?}");
}

#[test]
fn a_region_that_is_not_the_queues_is_an_error_whatever_the_form_of_the_host() {
    for url in [
        "https://sqs.us-west-2.amazonaws.com/1/q",
        "https://vpce-0a1b-4e5f.sqs.us-west-2.vpce.amazonaws.com/1/q",
        "https://vpce-0a1b-4e5f-us-west-2a.sqs.us-west-2.vpce.amazonaws.com/1/q",
        "https://sqs.us-west-2.api.aws/1/q",
        "https://sqs-fips.us-west-2.amazonaws.com/1/q",
        "https://us-west-2.queue.amazonaws.com/1/q",
    ] {
        let errors = errors(&[("QUEUE_URL", url)]);
        assert_eq!(errors.len(), 1, "{url}: {errors:?}");
        assert!(
            errors[0].ends_with("write AWS_REGION=us-west-2"),
            "{errors:?}"
        );
        assert!(load(&[("QUEUE_URL", url), ("AWS_REGION", "us-west-2")]).is_ok());
    }
    for (name, url, region) in [
        ("QUEUE_URL", "https://queue.amazonaws.com/1/q", "us-east-1"),
        (
            "AWS_ENDPOINT_URL_SQS",
            "https://vpce-1.sqs.us-east-1.vpce.amazonaws.com",
            "us-east-1",
        ),
        (
            "AWS_ENDPOINT_URL",
            "https://sqs.us-east-1.api.aws",
            "us-east-1",
        ),
    ] {
        let errors = errors(&[(name, url)]);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(
            errors[0].contains(name) && errors[0].contains(&format!("AWS_REGION={region}")),
            "{errors:?}"
        );
    }
}

#[test]
fn fips_and_dual_stack_choose_the_endpoint_or_are_named_as_without_effect() {
    let fips = ("AWS_USE_FIPS_ENDPOINT", "true");
    let dual = ("AWS_USE_DUALSTACK_ENDPOINT", "true");
    let gov = [
        ("AWS_REGION", "us-gov-west-1"),
        ("QUEUE_URL", "https://sqs.us-gov-west-1.amazonaws.com/1/q"),
    ];
    for (more, endpoint) in [
        (&[fips][..], "https://sqs-fips.eu-west-1.amazonaws.com/"),
        (&[dual], "https://sqs.eu-west-1.api.aws/"),
        (&[fips, dual], "https://sqs-fips.eu-west-1.api.aws/"),
        (
            &[gov[0], gov[1], fips],
            "https://sqs.us-gov-west-1.amazonaws.com/",
        ),
        (
            &[("AWS_USE_FIPS_ENDPOINT", "false")],
            "https://sqs.eu-west-1.amazonaws.com/",
        ),
    ] {
        let config = load(more).unwrap();
        assert_eq!(config.queue.endpoint.as_str(), endpoint, "{more:?}");
        assert_eq!(config.warnings, Vec::<String>::new());
        assert_eq!(config.queue.use_fips, more.contains(&fips));
    }
    for (other, endpoint) in [
        (("AWS_ENDPOINT_URL_SQS", "http://sqs:2"), "http://sqs:2/"),
        (("QUEUE_URL", "http://sqs:2/1/q"), "http://sqs:2/"),
        (
            (
                "QUEUE_URL",
                "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/1/q",
            ),
            "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/",
        ),
    ] {
        let config = load(&[other, fips, dual]).unwrap();
        assert_eq!(config.queue.endpoint.as_str(), endpoint);
        assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
        assert!(config.warnings[0].starts_with("AWS_USE_FIPS_ENDPOINT has no effect"));
    }
}

#[test]
fn what_the_sdk_of_aws_reads_and_this_service_does_not_is_named_in_one_warning() {
    let names = [
        ("AWS_RETRY_MODE", "legacy"),
        ("AWS_MAX_ATTEMPTS", "0"),
        ("AWS_DEFAULTS_MODE", "auto"),
        ("AWS_STS_REGIONAL_ENDPOINTS", "legacy"),
    ];
    let warnings = load(&names).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for (name, _) in names {
        assert!(warnings[0].contains(name), "{warnings:?}");
    }
    // As IRSA and Pod Identity set them.
    let injected = [
        ("AWS_STS_REGIONAL_ENDPOINTS", "regional"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/a"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/var/run/token"),
    ];
    assert_eq!(load(&injected).unwrap().warnings, Vec::<String>::new());
    let half = load(&[injected[3]]).unwrap().warnings;
    assert!(
        half.len() == 1 && half[0].contains("AWS_ROLE_ARN"),
        "{half:?}"
    );
    let ignored = [
        ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
        ("AWS_ENDPOINT_URL", "http://all:1"),
    ];
    assert!(load(&ignored[..1]).is_ok());
    assert!(errors(&ignored)[0].starts_with("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"));
}

#[test]
fn a_word_for_none_as_the_dsn_turns_reports_off() {
    for word in [
        "none", "FALSE", "0", "disabled", "\"\"", "''", "off", "null",
    ] {
        let config = load(&[("SENTRY_DSN", word)]).unwrap();
        assert!(matches!(config.sentry, SentryConfig::Off), "{word}");
        let about: Vec<_> = config
            .warnings
            .iter()
            .filter(|it| it.contains("DISABLE_SENTRY=1"))
            .collect();
        assert_eq!(about.len(), 1, "{word}: {:?}", config.warnings);
    }
}

#[test]
fn a_connection_string_is_neither_taken_nor_shown() {
    let azure =
        "mycache.redis.cache.windows.net:6380,password=s3cretKey=,ssl=True,abortConnect=False";
    for (name, value) in [
        ("REDIS_HOST", azure),
        ("REDIS_HOST", "redis:6379;password=s3cretKey"),
        ("REDIS_HOST", "redis://:s3cretKey@redis:6379"),
        ("REDIS_PORT", "6380,password=s3cretKey="),
        ("REDIS_DB", "0,password=s3cretKey="),
        ("REDIS_PASSWORD_FILE", "s3cretKey"),
        ("REDIS_TLS", "1,password=s3cretKey="),
    ] {
        let errors = errors(&[(name, value)]);
        assert!(!errors.is_empty(), "{name}={value}");
        assert!(!errors.concat().contains("s3cret"), "{errors:?}");
        let environment: Vec<(String, String)> = MINIMAL
            .iter()
            .filter(|(known, _)| *known != name)
            .chain([&(name, value)])
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let entries = format!("{:?}", entries(&environment));
        assert!(
            !entries.contains("s3cret") && entries.contains(name),
            "{entries}"
        );
    }
}
