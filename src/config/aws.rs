//! What belongs together among the AWS variables.

use secrecy::SecretString;
use url::Url;

use super::StaticCredentials;
use super::read::Reader;

/// A region that is not the queue's is signed for in vain.
pub fn check_region(read: &mut Reader, url: &Url, region: &str) {
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

pub fn credentials(
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
pub fn shadowed(rest: &[(String, String)]) -> Option<String> {
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
