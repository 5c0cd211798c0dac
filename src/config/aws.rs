//! The queue, and who we are to AWS.

use secrecy::SecretString;
use url::Url;

use super::read::{Reader, text};
use super::variables::Raw;
use super::{NetConfig, placeholder};

#[derive(Debug, Clone)]
pub struct QueueConfig {
    pub url: Url,
    pub region: String,
    pub endpoint: Url,
    /// Where STS is, if told: another place than AWS's own.
    pub sts: Option<Url>,
    /// `None`: the AWS default chain, else the Edge API.
    pub credentials: Option<StaticCredentials>,
    /// The role to take on by these credentials.
    pub role: Option<RoleConfig>,
    pub net: NetConfig,
    pub batch_size: usize,
    pub consumers: usize,
    /// Consumers that go on polling an empty queue.
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
        self.endpoint.host_str().is_some_and(|host| {
            host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn")
        })
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
    /// Agreed upon with whoever owns the role.
    pub external_id: Option<String>,
}

pub fn read(
    read: &mut Reader,
    raw: &mut Raw,
    rest: &[(String, String)],
    warnings: &mut Vec<String>,
    net: NetConfig,
) -> QueueConfig {
    let region = read.required("AWS_REGION", raw.aws_region.take());
    let url = read.url("QUEUE_URL", raw.queue_url.take(), None);
    if let (Some(url), Some(region)) = (&url, &region) {
        check_region(read, url, region);
    }
    let all = read.optional_url("AWS_ENDPOINT_URL", raw.aws_endpoint_url.take());
    let endpoint = read
        .optional_url("AWS_ENDPOINT_URL_SQS", raw.aws_endpoint_url_sqs.take())
        .or_else(|| all.clone())
        .or_else(|| url.as_ref().map(origin));
    let sts = read
        .optional_url("AWS_ENDPOINT_URL_STS", raw.aws_endpoint_url_sts.take())
        .or(all);
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
        endpoint: endpoint.unwrap_or_else(placeholder),
        url: url.unwrap_or_else(placeholder),
        region: region.unwrap_or_default(),
        sts,
        credentials,
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
            format!("is \"{arn}\": write the whole ARN, such as arn:aws:iam::123456789012:role/entitlements"),
        );
    }
    Some(RoleConfig { arn, external_id })
}

/// A region that is not the queue's is signed for in vain.
fn check_region(read: &mut Reader, url: &Url, region: &str) {
    let Some(of_url) = url.host_str().and_then(region_of) else {
        return;
    };
    if of_url != region {
        read.problem(
            "AWS_REGION",
            format!("is \"{region}\" but QUEUE_URL is in {of_url}: write AWS_REGION={of_url}"),
        );
    }
}

/// `sqs.<region>.amazonaws.com`, its FIPS and China forms, and `<region>.queue.amazonaws.com`.
fn region_of(host: &str) -> Option<&str> {
    let name = host
        .strip_suffix(".amazonaws.com")
        .or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    name.strip_prefix("sqs.")
        .or_else(|| name.strip_prefix("sqs-fips."))
        .or_else(|| name.strip_suffix(".queue"))
        .filter(|region| !region.contains('.'))
}

fn credentials(
    read: &mut Reader,
    id: Option<String>,
    secret: Option<String>,
    token: Option<String>,
) -> Option<StaticCredentials> {
    let trimmed = |value: Option<String>| value.map(|value| value.trim().to_owned());
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

/// Static keys win over the identity that the platform gave the pod, which is seldom meant.
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

#[cfg(test)]
mod tests {
    use super::region_of;

    #[test]
    fn regions_are_read_from_every_form_of_host() {
        for (host, region) in [
            ("sqs.eu-west-1.amazonaws.com", Some("eu-west-1")),
            (
                "sqs-fips.us-gov-west-1.amazonaws.com",
                Some("us-gov-west-1"),
            ),
            ("sqs.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("us-west-2.queue.amazonaws.com", Some("us-west-2")),
            ("vpce-1.sqs.eu-west-1.vpce.amazonaws.com", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(region_of(host), region, "{host}");
        }
    }
}
