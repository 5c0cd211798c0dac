//! Reads the variables of OpenTelemetry: the endpoint, headers and sampler of traces.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::Url;

use super::read::{Reader, shown, text};
use super::variables::Raw;

/// How spans are sent. The SDK of OpenTelemetry reads some variables itself: headers,
/// attributes of the resource, and the sampler.
#[derive(Debug, Clone)]
pub struct TracesConfig {
    /// The full URL, with its path.
    pub endpoint: Url,
    /// Whether `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` names this service.
    pub is_named: bool,
    pub timeout: Duration,
}

const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

pub fn read(
    read: &mut Reader,
    raw: &mut Raw,
    rest: &[(String, String)],
    warnings: &mut Vec<String>,
) -> Option<TracesConfig> {
    let is_off = read.boolean("OTEL_SDK_DISABLED", raw.otel_sdk_disabled.take(), false);
    let exporter = text(raw.otel_traces_exporter.take());
    let base = read.optional_url(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        raw.otel_exporter_otlp_endpoint.take(),
    );
    let whole = read.whole_url(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        raw.otel_exporter_otlp_traces_endpoint.take(),
    );
    let own_headers = raw.otel_exporter_otlp_traces_headers.take();
    headers(
        read,
        "OTEL_EXPORTER_OTLP_HEADERS",
        raw.otel_exporter_otlp_headers.take(),
    );
    headers(read, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", own_headers);
    let attributes = text(raw.otel_resource_attributes.take());
    if attributes.as_deref().is_some_and(|it| pairs(it).is_none()) {
        read.problem(
            "OTEL_RESOURCE_ATTRIBUTES",
            "is not a list of name=value: write name=value, separated by commas",
        );
    }
    let has_name = |attributes: &str| {
        let pairs = pairs(attributes).unwrap_or_default();
        pairs.iter().any(|(name, _)| *name == "service.name")
    };
    let is_named =
        text(raw.otel_service_name.take()).is_some() || attributes.as_deref().is_some_and(has_name);
    sampler(read, raw, warnings);
    let millis = |name: &str, value| read_millis(read, name, value);
    let timeout = timeout(millis, raw, rest);

    let endpoint = whole.or_else(|| base.map(|base| below(&base)))?;
    if is_off {
        return None;
    }
    let exporter = exporter
        .unwrap_or_else(|| "otlp".into())
        .to_ascii_lowercase();
    // One exporter, or several separated by commas.
    let is_otlp = |exporter: &str| exporter.trim() == "otlp";
    if exporter == "none" {
        return None;
    }
    if !exporter.split(',').all(is_otlp) {
        let other = shown(&exporter.replace(',', " "));
        let what = match exporter.split(',').any(is_otlp) {
            true => "the others have no effect",
            false => "no traces are sent",
        };
        warnings.push(format!(
            "OTEL_TRACES_EXPORTER is {other}, and only otlp is supported: {what}; write otlp or none"
        ));
    }
    if !exporter.split(',').any(is_otlp) {
        return None;
    }
    if !cfg!(feature = "otlp") {
        warnings.push("OTEL_EXPORTER_OTLP_ENDPOINT has no effect: this binary was built without the feature otlp".into());
    }
    doubts(rest, &endpoint, warnings);
    Some(TracesConfig {
        endpoint,
        is_named,
        timeout,
    })
}

/// Appends the path of traces to a base URL.
fn below(base: &Url) -> Url {
    let path = format!("{}/v1/traces", base.path().trim_end_matches('/'));
    let mut url = base.clone();
    url.set_path(&path);
    url
}

/// Parses `name=value,name=value`; `None` where an entry is not such a pair.
fn pairs(list: &str) -> Option<Vec<(&str, &str)>> {
    list.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let (name, value) = entry.split_once('=')?;
            Some((name.trim(), value.trim())).filter(|(name, _)| !name.is_empty())
        })
        .collect()
}

/// Registers each value as a secret, plain and percent-encoded.
fn headers(read: &mut Reader, name: &'static str, value: Option<String>) {
    let Some(list) = text(value) else {
        return;
    };
    let Some(pairs) = pairs(&list) else {
        read.problem(
            name,
            "is not a list of name=value: write name=value, separated by commas",
        );
        return;
    };
    for (_, value) in pairs {
        let plain = percent_decode_str(value).decode_utf8_lossy().into_owned();
        // A scheme (Bearer) is not part of the secret, which may be logged without it.
        let bare = plain.rsplit(' ').next().map(str::to_owned);
        for secret in [Some(value.to_owned()), bare, Some(plain)] {
            read.secret(secret);
        }
    }
}

fn sampler(read: &mut Reader, raw: &mut Raw, warnings: &mut Vec<String>) {
    let ratio = text(raw.otel_traces_sampler_arg.take());
    let Some(sampler) = text(raw.otel_traces_sampler.take()) else {
        return;
    };
    if !SAMPLERS.contains(&sampler.as_str()) {
        let sampler = shown(&sampler);
        warnings.push(format!(
            "OTEL_TRACES_SAMPLER is {sampler}, which is not supported, so all traces are sent; write one of {}",
            SAMPLERS.join(", ")
        ));
    }
    let is_ratio = |text: &str| {
        text.parse::<f64>()
            .is_ok_and(|it| (0.0..=1.0).contains(&it))
    };
    if sampler.ends_with("traceidratio") && ratio.is_some_and(|ratio| !is_ratio(&ratio)) {
        read.problem(
            "OTEL_TRACES_SAMPLER_ARG",
            "is not a ratio: write a number from 0 to 1",
        );
    }
}

fn read_millis(read: &mut Reader, name: &str, value: Option<String>) -> Option<Duration> {
    let millis = read.optional_number(name, value, 1..=3_600_000)?;
    Some(Duration::from_millis(millis))
}

fn timeout(
    mut millis: impl FnMut(&str, Option<String>) -> Option<Duration>,
    raw: &mut Raw,
    rest: &[(String, String)],
) -> Duration {
    const OWN: &str = "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT";
    let own = rest.iter().find(|(name, _)| name == OWN);
    let own = millis(OWN, own.map(|(_, value)| value.clone()));
    let all = millis(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        raw.otel_exporter_otlp_timeout.take(),
    );
    own.or(all).unwrap_or(Duration::from_secs(10))
}

/// Warns of settings that traces do not follow: protocol, gRPC port and compression.
fn doubts(rest: &[(String, String)], endpoint: &Url, warnings: &mut Vec<String>) {
    let value = |names: [&str; 2]| {
        names.into_iter().find_map(|name| {
            let (name, value) = rest.iter().find(|(known, _)| known == name)?;
            Some((
                name.as_str(),
                text(Some(value.clone()))?.to_ascii_lowercase(),
            ))
        })
    };
    let protocol = value([
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ]);
    let is_other = protocol
        .as_ref()
        .is_some_and(|(_, it)| it != "http/protobuf");
    if let (Some((name, protocol)), true) = (&protocol, is_other) {
        let protocol = shown(&protocol.replace('/', " "));
        warnings.push(format!(
            "{name} is {protocol}, but traces are sent by http/protobuf: set the HTTP port of the collector, 4318 by default"
        ));
    } else if endpoint.port() == Some(4317) {
        warnings.push("the OTLP endpoint has port 4317, which is for gRPC by default, but traces are sent by HTTP: set the HTTP port, 4318 by default".into());
    }
    let compression = value([
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
    ]);
    if let Some((name, compression)) = compression
        && compression != "none"
    {
        warnings.push(format!(
            "{name} has no effect: traces are sent uncompressed"
        ));
    }
}

/// Returns whether a variable outside the table is read here.
pub fn is_read(name: &str) -> bool {
    [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
        "OTEL_EXPORTER_OTLP_COMPRESSION",
    ]
    .contains(&name)
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{errors, load};

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/");

    fn endpoint(more: &[(&str, &str)]) -> Option<String> {
        let traces = load(more).unwrap().traces;
        traces.map(|traces| traces.endpoint.to_string())
    }

    #[test]
    fn the_endpoint_of_traces_is_used_as_it_is_and_the_other_is_a_base() {
        assert_eq!(endpoint(&[]), None);
        assert_eq!(
            endpoint(&[BASE]).as_deref(),
            Some("http://collector:4318/base/v1/traces")
        );
        let own = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://other:1/spans?dataset=a",
        );
        assert_eq!(
            endpoint(&[BASE, own]).as_deref(),
            Some("https://other:1/spans?dataset=a")
        );
        for off in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ] {
            assert_eq!(endpoint(&[BASE, own, off]), None, "{off:?}");
            assert_eq!(load(&[BASE, off]).unwrap().warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn what_traces_cannot_do_is_named_once() {
        for (name, value, says) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317", "4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                "http/json",
                "http/protobuf",
            ),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip", "uncompressed"),
            ("OTEL_TRACES_EXPORTER", "zipkin", "no traces are sent"),
            (
                "OTEL_TRACES_EXPORTER",
                "otlp,console",
                "the others have no effect",
            ),
            (
                "OTEL_TRACES_SAMPLER",
                "jaeger_remote",
                "parentbased_always_on",
            ),
            ("OTEL_METRICS_EXPORTER", "prometheus", "without effect"),
            ("OTEL_PROPAGATORS", "b3", "without effect"),
            (
                "OTEL_EXPORTER_OTLP_CERTIFICATE",
                "/ca.pem",
                "without effect",
            ),
        ] {
            let warnings = load(&[BASE, (name, value)]).unwrap().warnings;
            assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
            assert!(warnings[0].contains(says), "{warnings:?}");
        }
        assert!(endpoint(&[BASE, ("OTEL_TRACES_EXPORTER", "otlp,console")]).is_some());
        // As Kubernetes sets them beside a service named otel-collector.
        for (name, value) in [
            ("OTEL_COLLECTOR_PORT", "tcp://10.0.0.9:4318"),
            ("OTEL_COLLECTOR_SERVICE_HOST", "10.0.0.9"),
            ("OTEL_COLLECTOR_PORT_4318_TCP_ADDR", "10.0.0.9"),
        ] {
            let warnings = load(&[BASE, (name, value)]).unwrap().warnings;
            assert_eq!(warnings, Vec::<String>::new(), "{name}");
        }
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let both = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), grpc];
        assert_eq!(load(&both).unwrap().warnings.len(), 1);
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1000"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,b=c"),
        ] {
            let warnings = load(&[BASE, (name, value)]).unwrap().warnings;
            assert_eq!(warnings, Vec::<String>::new(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_shows_no_secret() {
        for (name, value, says) in [
            ("OTEL_SDK_DISABLED", "maybe", "0 or 1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "canary", "name=value"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "=canary", "name=value"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a", "name=value"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "whole number"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s", "whole number"),
            ("OTEL_BSP_SCHEDULE_DELAY", "5s", "whole number"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector", "URL"),
        ] {
            let errors = errors(&[BASE, (name, value)]);
            assert_eq!(errors.len(), 1, "{name}: {errors:?}");
            assert!(
                errors[0].starts_with(name) && errors[0].contains(says),
                "{errors:?}"
            );
            assert!(!errors[0].contains("canary"), "{errors:?}");
        }
        let ratio = [
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "half"),
        ];
        assert!(errors(&ratio)[0].starts_with("OTEL_TRACES_SAMPLER_ARG"));
    }

    #[test]
    fn values_of_headers_are_secrets() {
        use secrecy::ExposeSecret;
        let headers = (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "a=canary-1,b=Bearer%20canary-2",
        );
        let secrets = load(&[BASE, headers]).unwrap().log.secrets;
        for secret in ["canary-1", "canary-2", "Bearer%20canary-2"] {
            assert!(
                secrets.iter().any(|it| it.expose_secret() == secret),
                "{secret}"
            );
        }
    }
}
