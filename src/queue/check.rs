//! What `check` asks of AWS. Nothing is received, and nothing is changed.

mod link;
mod rights;

use std::time::Duration;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_sqs::types::QueueAttributeName;
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use tokio::sync::watch;

use super::client::SHORT;
use super::credentials::{Identity, known_credentials, sts};
use super::error::{described, explained, kind_of_both, kind_of_credentials, queue_error};
use super::sqs::max_receive_count;
use super::{QueueError, QueueErrorKind, SqsQueue};
use crate::check::{Check, LIMIT};
use crate::config::QueueConfig;
use crate::edge::Edge;
use crate::said::cut_aws;

/// Looks at the way to the queue, at who we are, and at what we may. Takes no longer than a few
/// times [`LIMIT`].
pub async fn check(config: &QueueConfig, edge: &Edge) -> Vec<Check> {
    let (mut link, us) = tokio::join!(link::check(config), as_ourselves(config, edge));
    let mut checks = vec![link::region(config)];
    checks.append(&mut link);
    checks.extend(us);
    checks
}

async fn as_ourselves(config: &QueueConfig, edge: &Edge) -> Vec<Check> {
    let known = watch::Sender::new(None);
    let provider = known_credentials(config, edge, known.clone()).await;
    let found = tokio::time::timeout(LIMIT, provider.provide_credentials()).await;
    let mut checks = vec![match &found {
        Ok(Ok(_)) => credentials(known.borrow().as_ref()),
        Ok(Err(error)) => match kind_of_credentials(error) {
            Some(QueueErrorKind::CredentialsExpired) => Check::fail(
                "credentials",
                format!("have expired: {}", explained(error)),
                QueueErrorKind::CredentialsExpired.advice(),
            ),
            Some(kind @ QueueErrorKind::Clock) => {
                Check::fail("credentials", explained(error), kind.advice())
            }
            _ => Check::fail("credentials", explained(error), NO_CREDENTIALS),
        },
        Err(_) => Check::fail("credentials", "nobody gave any in time", NO_CREDENTIALS),
    }];
    if !matches!(found, Ok(Ok(_))) {
        return checks;
    }
    let (identity, queue) = tokio::join!(
        identity(config, provider.clone()),
        the_queue(config, provider)
    );
    checks.extend(identity);
    checks.extend(queue);
    checks
}

const NO_CREDENTIALS: &str =
    "set keys, give the pod or instance a role, or check SERVER_API_KEY; docs/aws.md has the order";

fn credentials(identity: Option<&Identity>) -> Check {
    let Some(Identity { source, expires_at }) = identity else {
        return Check::pass("credentials", "known");
    };
    match expires_at {
        Some(end) => Check::pass("credentials", format!("{source}, until {end}")),
        None => Check::pass("credentials", source.as_str()),
    }
}

/// Who AWS says we are. Asked only of AWS, or of the STS that was named: keys of a local server are
/// nobody's business elsewhere.
async fn identity(config: &QueueConfig, provider: SharedCredentialsProvider) -> Option<Check> {
    if !config.is_of_aws() && config.sts.is_none() {
        return None;
    }
    let client = aws_sdk_sts::Client::new(&sts(config, provider));
    let answer = client.get_caller_identity().send().await;
    let error = match answer {
        Ok(answer) => {
            let arn = answer.arn.unwrap_or_else(|| "no ARN was given".into());
            return Some(Check::pass("identity", arn));
        }
        Err(error) => error,
    };
    const ADVICE: &str = "nothing, if only the queue is to be reached; otherwise let STS through";
    let SdkError::ServiceError(service) = &error else {
        let detail = format!("STS does not answer: {}", explained(&error));
        return Some(Check::warn("identity", detail, ADVICE));
    };
    let Some(code) = service.err().code() else {
        let detail = format!("{} and no error of STS", described(service.raw()));
        return Some(Check::warn("identity", detail, ADVICE));
    };
    let message = service.err().message().unwrap_or("no message");
    let detail = format!("{code}: {}", cut_aws(message));
    let kind = kind_of_both(code, message);
    let refused = [
        QueueErrorKind::Credentials,
        QueueErrorKind::CredentialsExpired,
        QueueErrorKind::Clock,
    ];
    Some(match refused.contains(&kind) {
        true => Check::fail("identity", detail, kind.advice()),
        // Whatever answers is no STS, or does not tell.
        false => Check::warn("identity", detail, ADVICE),
    })
}

async fn the_queue(config: &QueueConfig, provider: SharedCredentialsProvider) -> Vec<Check> {
    let queue = SqsQueue::new(config, provider).await;
    let asked = queue
        .client()
        .get_queue_attributes()
        .queue_url(config.url.as_str())
        .attribute_names(QueueAttributeName::All)
        .send();
    let answer = match asked.await.map_err(queue_error) {
        Ok(answer) => answer,
        Err(error) if error.kind == QueueErrorKind::AccessDenied => {
            let mut checks = vec![Check::warn(
                "queue",
                "sqs:GetQueueAttributes is not allowed; 30 s of visibility timeout and no dead-letter queue are assumed",
                "allow sqs:GetQueueAttributes on the queue",
            )];
            checks.extend(rights::check(config, queue.client(), None).await);
            return checks;
        }
        Err(error) => return vec![failed("queue", &error)],
    };
    let attributes = answer.attributes.unwrap_or_default();
    let of = |name| attributes.get(&name).map(String::as_str);
    let count =
        of(QueueAttributeName::ApproximateNumberOfMessages).unwrap_or("an unknown number of");
    let mut checks = vec![Check::pass("queue", format!("about {count} messages wait"))];
    let key = of(QueueAttributeName::KmsMasterKeyId).filter(|key| !key.is_empty());
    checks.extend(rights::check(config, queue.client(), key).await);
    let visible = of(QueueAttributeName::VisibilityTimeout).and_then(|secs| secs.parse().ok());
    checks.extend(visible.map(|secs| visibility(Duration::from_secs(secs))));
    let redrive = of(QueueAttributeName::RedrivePolicy).and_then(max_receive_count);
    checks.push(redrive_policy(redrive, config.max_receive_count));
    checks
}

fn failed(name: &'static str, error: &QueueError) -> Check {
    let QueueError { kind, detail } = error;
    Check::fail(name, format!("{kind}: {detail}"), kind.advice())
}

/// Redis may take as long to answer, and then the delete.
const BATCH: Duration = Duration::from_secs(2 + SHORT.as_secs());
const LONGEST: Duration = Duration::from_secs(12 * 3600);

fn visibility(timeout: Duration) -> Check {
    let secs = timeout.as_secs();
    if timeout < BATCH {
        return Check::warn(
            "visibility-timeout",
            format!(
                "{secs} s: a batch may take {} s where Redis or the queue is slow, and messages would be handed out twice",
                BATCH.as_secs()
            ),
            "set 30 to 60 s on the queue",
        );
    }
    if timeout > LONGEST {
        return Check::warn(
            "visibility-timeout",
            format!(
                "{secs} s, over 12 hours: what a lost process had in hand comes again only then"
            ),
            "set 30 to 60 s on the queue",
        );
    }
    Check::pass("visibility-timeout", format!("{secs} s"))
}

/// Fewer would give up what an outage or a rollout interrupts.
const FEWEST: u32 = 5;

fn redrive_policy(redrive: Option<u32>, limit: u32) -> Check {
    match redrive {
        None => Check::warn(
            "redrive-policy",
            "none: what cannot be applied is kept in a Redis stream instead",
            format!(
                "give the queue a dead-letter queue, with a maxReceiveCount of {FEWEST} or more"
            ),
        ),
        Some(count) if count < FEWEST => Check::warn(
            "redrive-policy",
            format!("after {count} deliveries, and a process that is killed costs one"),
            format!("set a maxReceiveCount of {FEWEST} or more"),
        ),
        Some(count) => Check::pass(
            "redrive-policy",
            format!("after {count} deliveries (MAX_RECEIVE_COUNT is {limit})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Status;

    #[test]
    fn a_visibility_timeout_is_judged_by_what_a_batch_needs() {
        for (secs, status) in [
            (0, Status::Warn),
            (10, Status::Warn),
            (11, Status::Pass),
            (30, Status::Pass),
            (43_200, Status::Pass),
            (43_201, Status::Warn),
        ] {
            assert_eq!(
                visibility(Duration::from_secs(secs)).status,
                status,
                "{secs}"
            );
        }
    }

    #[test]
    fn a_redrive_policy_is_to_leave_room_for_outages() {
        for (count, status) in [
            (None, Status::Warn),
            (Some(4), Status::Warn),
            (Some(5), Status::Pass),
        ] {
            assert_eq!(redrive_policy(count, 5).status, status, "{count:?}");
        }
    }
}
