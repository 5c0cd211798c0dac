//! Reads the variables of the queue and of the AWS credentials.

mod hosts;

use secrecy::SecretString;
use url::Url;

use super::read::{Reader, shown, text};
use super::variables::Raw;
use super::{NetConfig, placeholder};

#[derive(Debug, Clone)]
pub struct QueueConfig {
    pub url: Url,
    pub region: String,
    pub endpoint: Url,
    /// The endpoint of STS, if it is not the one of AWS.
    pub sts: Option<Url>,
    /// Whether requests to STS go to its FIPS or dual-stack endpoint. `endpoint` already includes the choice for SQS.
    pub use_fips: bool,
    pub use_dual_stack: bool,
    /// `None`: the AWS default chain, else the Edge API.
    pub credentials: Option<StaticCredentials>,
    /// Names of files and profiles in which the AWS default chain looks for credentials.
    pub identity: Vec<(String, String)>,
    /// The role to assume with these credentials.
    pub role: Option<RoleConfig>,
    pub net: NetConfig,
    pub batch_size: usize,
    pub consumers: usize,
    /// Consumers that keep polling an empty queue.
    pub min_pollers: usize,
    pub max_receive_count: u32,
    pub dead_letter_max_len: u64,
    pub max_inflight_bytes: Option<usize>,
}

impl QueueConfig {
    pub fn is_fifo(&self) -> bool {
        self.url.path().ends_with(".fifo")
    }

    /// Whether requests go to AWS, and not to a local server.
    pub fn is_of_aws(&self) -> bool {
        self.endpoint.host_str().is_some_and(hosts::is_of_aws)
    }
}

#[derive(Debug, Clone)]
pub struct StaticCredentials {
    pub access_key_id: SecretString,
    pub secret_access_key: SecretString,
    pub session_token: Option<SecretString>,
}

#[derive(Debug, Clone)]
pub struct RoleConfig {
    pub arn: String,
    /// Agreed with the owner of the role.
    pub external_id: Option<String>,
}

pub fn read(
    read: &mut Reader,
    raw: &mut Raw,
    rest: &[(String, String)],
    warnings: &mut Vec<String>,
    net: NetConfig,
) -> QueueConfig {
    let region = region(read, raw.aws_region.take());
    let url = read.url("QUEUE_URL", raw.queue_url.take(), None);
    let all = read.optional_url("AWS_ENDPOINT_URL", raw.aws_endpoint_url.take());
    let own = read.optional_url("AWS_ENDPOINT_URL_SQS", raw.aws_endpoint_url_sqs.take());
    let sts = read
        .optional_url("AWS_ENDPOINT_URL_STS", raw.aws_endpoint_url_sts.take())
        .or(all.clone());
    let mut kind = |name, value: Option<String>| (name, read.boolean(name, value, false));
    let kinds = [
        kind("AWS_USE_FIPS_ENDPOINT", raw.aws_use_fips_endpoint.take()),
        kind(
            "AWS_USE_DUALSTACK_ENDPOINT",
            raw.aws_use_dualstack_endpoint.take(),
        ),
    ];
    let told = match (own, all) {
        (Some(own), _) => Some(("AWS_ENDPOINT_URL_SQS", own)),
        (None, all) => all.map(|all| ("AWS_ENDPOINT_URL", all)),
    };
    if let Some(region) = &region {
        let told = told.as_ref().map(|(name, url)| (*name, url));
        let urls = url.iter().map(|url| ("QUEUE_URL", url)).chain(told);
        for (name, url) in urls {
            check_region(read, name, url, region);
        }
    }
    let endpoint = match (told, &url) {
        (Some((name, told)), _) => {
            without_effect(kinds, &format!("requests go to {name}"), warnings);
            told
        }
        (None, Some(url)) => {
            let region = region.as_deref().unwrap_or_default();
            default_endpoint(url, region, kinds, warnings)
        }
        (None, None) => placeholder(),
    };
    let credentials = credentials(
        read,
        raw.aws_access_key_id.take(),
        raw.aws_secret_access_key.take(),
        raw.aws_session_token.take(),
    );
    if let Some(warning) = credentials.as_ref().and_then(|_| shadowed(rest)) {
        warnings.push(warning);
    }
    let consumers = read.number("CONSUMERS", raw.consumers.take(), 10, 1..=1000);
    let min_pollers = read.number("MIN_POLLERS", raw.min_pollers.take(), 1, 1..=1000);
    if min_pollers > consumers {
        read.problem(
            "MIN_POLLERS",
            format!("is {min_pollers}, more than CONSUMERS ({consumers}): write at most that"),
        );
    }
    QueueConfig {
        endpoint,
        url: url.unwrap_or_else(placeholder),
        region: region.unwrap_or_default(),
        // An endpoint that is configured is used unchanged.
        use_fips: kinds[0].1 && sts.is_none(),
        use_dual_stack: kinds[1].1 && sts.is_none(),
        sts,
        credentials,
        identity: rest
            .iter()
            .filter(|(name, _)| IDENTITY.contains(&name.as_str()))
            .cloned()
            .collect(),
        role: role(
            read,
            raw.sqs_role_arn.take(),
            raw.sqs_role_external_id.take(),
        ),
        net,
        batch_size: read.number("BATCH_SIZE", raw.batch_size.take(), 1, 1..=10),
        consumers,
        min_pollers,
        max_receive_count: read.number(
            "MAX_RECEIVE_COUNT",
            raw.max_receive_count.take(),
            5,
            1..=1000,
        ),
        dead_letter_max_len: read.number(
            "DEAD_LETTER_MAX_LEN",
            raw.dead_letter_max_len.take(),
            1000,
            1..=1_000_000,
        ),
        max_inflight_bytes: read.optional_number(
            "MAX_INFLIGHT_BYTES",
            raw.max_inflight_bytes.take(),
            1 << 20..=1 << 40,
        ),
    }
}

fn region(read: &mut Reader, value: Option<String>) -> Option<String> {
    let region = read.required("AWS_REGION", value)?;
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !region.bytes().all(is_name) {
        let region = shown(&region);
        read.problem(
            "AWS_REGION",
            format!("is {region}: write the name of a region, for example us-east-1"),
        );
        return None;
    }
    Some(region)
}

/// The vendor's own SDK sends requests to the host of the queue's URL; the Rust one would not.
fn origin(url: &Url) -> Url {
    Url::parse(&url.origin().ascii_serialization()).unwrap_or_else(|_| url.clone())
}

fn role(read: &mut Reader, arn: Option<String>, external_id: Option<String>) -> Option<RoleConfig> {
    let external_id = text(external_id);
    let Some(arn) = text(arn) else {
        if external_id.is_some() {
            read.problem(
                "SQS_ROLE_EXTERNAL_ID",
                "is set without SQS_ROLE_ARN: set both, or neither",
            );
        }
        return None;
    };
    if !(arn.starts_with("arn:") && arn.contains(":iam::") && arn.contains(":role/")) {
        read.problem(
            "SQS_ROLE_ARN",
            format!(
                "is {}: write the whole ARN, for example arn:aws:iam::123456789012:role/entitlements",
                shown(&arn)
            ),
        );
    }
    Some(RoleConfig { arn, external_id })
}

/// Reports a region that differs from the queue's: SQS rejects requests signed for another region.
fn check_region(read: &mut Reader, name: &str, url: &Url, region: &str) {
    let Some(of_url) = url.host_str().and_then(hosts::region) else {
        return;
    };
    if of_url != region {
        let region = shown(region);
        read.problem(
            "AWS_REGION",
            format!("is {region} but {name} is in {of_url}: write AWS_REGION={of_url}"),
        );
    }
}

/// Returns the default endpoint. FIPS and dual-stack have their own hosts, which the SDK
/// chooses only if no endpoint is set.
fn default_endpoint(
    url: &Url,
    region: &str,
    kinds: [(&str, bool); 2],
    warnings: &mut Vec<String>,
) -> Url {
    let [(_, fips), (_, dual_stack)] = kinds;
    if !fips && !dual_stack {
        return origin(url);
    }
    let host = url.host_str().unwrap_or_default();
    let other = format!("https://{}", hosts::sqs(region, fips, dual_stack));
    match Url::parse(&other) {
        Ok(other) if hosts::is_public(host) => other,
        _ => {
            without_effect(kinds, "requests go to the host of QUEUE_URL", warnings);
            origin(url)
        }
    }
}

fn without_effect(kinds: [(&str, bool); 2], why: &str, warnings: &mut Vec<String>) {
    for (name, _) in kinds.iter().filter(|(_, set)| *set) {
        warnings.push(format!("{name} has no effect on the queue, since {why}"));
    }
}

fn credentials(
    read: &mut Reader,
    id: Option<String>,
    secret: Option<String>,
    token: Option<String>,
) -> Option<StaticCredentials> {
    let trimmed = text;
    let id = read.secret(trimmed(id));
    let secret: Option<SecretString> = read.secret(trimmed(secret));
    let token = read.secret(trimmed(token));
    match (id, secret) {
        (Some(access_key_id), Some(secret_access_key)) => Some(StaticCredentials {
            access_key_id,
            secret_access_key,
            session_token: token,
        }),
        (Some(_), None) => {
            read.problem(
                "AWS_SECRET_ACCESS_KEY",
                "is not set, but AWS_ACCESS_KEY_ID is: set both, or neither",
            );
            None
        }
        (None, Some(_)) => {
            read.problem(
                "AWS_ACCESS_KEY_ID",
                "is not set, but AWS_SECRET_ACCESS_KEY is: set both, or neither",
            );
            None
        }
        (None, None) => {
            if token.is_some() {
                read.problem("AWS_SESSION_TOKEN", "is set without AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: set all three, or none");
            }
            None
        }
    }
}

const IDENTITY: [&str; 5] = [
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];

/// Warns if static keys override the identity that the platform gave the pod, which is rarely intended.
fn shadowed(rest: &[(String, String)]) -> Option<String> {
    let identity = [
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ];
    let (name, _) = rest
        .iter()
        .find(|(name, _)| identity.contains(&name.as_str()))?;
    Some(format!(
        "AWS_ACCESS_KEY_ID is set, so the identity of {name} is not used: unset the keys to use it"
    ))
}
