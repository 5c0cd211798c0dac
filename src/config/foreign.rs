//! Checks the variables of the AWS SDK, OpenTelemetry and Kubernetes.

use super::read::{Reader, shown, text};
use super::{VARIABLES, traces};

/// Variables that the AWS SDK reads when it looks for credentials, or that [`net`](super::net) reads.
const USED: [&str; 19] = [
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "ALL_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_DIR",
];

/// Variables of the AWS SDKs without effect here: this service sets its own retries, timeouts and checks.
const WITHOUT_EFFECT: [&str; 17] = [
    "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    "AWS_AUTH_SCHEME_PREFERENCE",
    "AWS_DEFAULTS_MODE",
    "AWS_DISABLE_CLOCK_SKEW_CORRECTION",
    "AWS_DISABLE_REQUEST_COMPRESSION",
    "AWS_EC2_METADATA_V1_DISABLED",
    "AWS_LOGIN_CACHE_DIRECTORY",
    "AWS_MAX_ATTEMPTS",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
    "AWS_METADATA_SERVICE_TIMEOUT",
    "AWS_NEW_RETRIES_2026",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_RETRY_MODE",
    "AWS_SDK_UA_APP_ID",
    "AWS_SIGV4A_SIGNING_REGION_SET",
];

/// Variables that the SDK of OpenTelemetry reads: how it keeps spans and sends them in batches.
const OTEL_USED: [&str; 8] = [
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_CONCURRENT_EXPORTS",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
];

/// Returns whether a variable that is not in the table has an effect all the same.
pub fn is_used(name: &str) -> bool {
    USED.contains(&name) || OTEL_USED.contains(&name) || traces::is_read(name)
}

/// Checks at start what the SDKs would check only later, and warns of variables without effect.
pub fn read(
    read: &mut Reader,
    rest: &[(String, String)],
    region: &str,
    has_endpoints: bool,
    warnings: &mut Vec<String>,
) {
    let value = |name: &str| {
        let (_, value) = rest.iter().find(|(known, _)| known == name)?;
        text(Some(value.clone()))
    };
    let has = |name: &&str| value(name).is_some();
    read.secret(value("AWS_CONTAINER_AUTHORIZATION_TOKEN"));
    read.optional_url(
        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
        value("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
    );
    read.one_of(
        "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
        value("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"),
        &["IPv4", "IPv6"],
    );
    read.one_of(
        "AWS_EC2_METADATA_DISABLED",
        value("AWS_EC2_METADATA_DISABLED"),
        &["true", "false"],
    );
    for name in OTEL_USED {
        read.optional_number(name, value(name), 0..=u64::from(u32::MAX));
    }
    let ignored = without_effect(rest, &has);
    if !ignored.is_empty() {
        warnings.push(format!(
            "without effect here, though other programs use them: {}",
            ignored.join(", ")
        ));
    }
    if has(&"AWS_WEB_IDENTITY_TOKEN_FILE") && !has(&"AWS_ROLE_ARN") {
        warnings.push(
            "AWS_WEB_IDENTITY_TOKEN_FILE has no effect without AWS_ROLE_ARN: set both, or neither"
                .into(),
        );
    }
    if let Some(other) = value("AWS_DEFAULT_REGION").filter(|it| it != region) {
        let other = shown(&other);
        warnings.push(format!(
            "AWS_DEFAULT_REGION is {other} and has no effect: AWS_REGION is the region"
        ));
    }
    let is_true = |value: String| value.eq_ignore_ascii_case("true");
    if value("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS").is_some_and(is_true) && has_endpoints {
        read.problem(
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
            "is true, and an AWS_ENDPOINT_URL is set: unset one of them",
        );
    }
}

fn without_effect<'a>(rest: &'a [(String, String)], has: &impl Fn(&&str) -> bool) -> Vec<&'a str> {
    let mut names: Vec<&str> = rest
        .iter()
        .filter(|(name, value)| {
            // A service may be called otel-collector.
            let is_otel = name.starts_with("OTEL_") && !is_injected(name, value.trim());
            let is_legacy = name == "AWS_STS_REGIONAL_ENDPOINTS"
                && !value.trim().eq_ignore_ascii_case("regional");
            is_otel && !is_used(name) || is_legacy || WITHOUT_EFFECT.contains(&name.as_str())
        })
        .map(|(name, _)| name.as_str())
        .filter(|name| has(name))
        .collect();
    names.sort_unstable();
    names
}

/// Returns whether Kubernetes sets this variable for a service of the namespace: `X_SERVICE_HOST`, `X_SERVICE_PORT…`,
/// `X_PORT=tcp://…`, `X_PORT_6379_TCP…`.
pub fn is_injected(name: &str, value: &str) -> bool {
    const SCHEMES: [&str; 3] = ["tcp://", "udp://", "sctp://"];
    let is_url = SCHEMES.iter().any(|scheme| value.starts_with(scheme));
    let is_of_port = name.split("_PORT_").skip(1).any(|rest| {
        let mut parts = rest.split('_');
        let number = parts.next().unwrap_or_default();
        let protocol = parts.next().unwrap_or_default();
        number.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].contains(&protocol)
    });
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || is_of_port
        || is_url && name.ends_with("_PORT")
}

/// Returns whether a variable belongs to another program, with or without an effect here.
pub fn is_known(name: &str) -> bool {
    is_used(name)
        || WITHOUT_EFFECT.contains(&name)
        || name.starts_with("OTEL_")
        || VARIABLES.iter().any(|variable| variable.name == name)
}
