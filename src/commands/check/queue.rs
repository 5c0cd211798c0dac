//! Judges the queue: its endpoint, the caller, its settings, and the clock.

use std::time::Duration;

use entitlement_sync::config::QueueConfig;
use entitlement_sync::edge::Edge;
use entitlement_sync::queue::probe::{
    Caller, CallerError, Permission, QueueAttributes, QueueFacts, ask_endpoint,
};
use entitlement_sync::queue::{Identity, QueueError, QueueErrorKind, SHORT_CALL_TIMEOUT};
use secrecy::ExposeSecret;
use url::Url;

use super::finding::{Check, PROBE_TIMEOUT, dns};

/// Takes no longer than a few times [`PROBE_TIMEOUT`].
pub async fn check(config: &QueueConfig, edge: &Edge) -> Vec<Check> {
    let (mut endpoint, caller) = tokio::join!(endpoint(config), caller(config, edge));
    let mut checks = vec![region(config)];
    checks.append(&mut endpoint);
    checks.extend(caller);
    checks
}

fn region(config: &QueueConfig) -> Check {
    // The configuration rejects a region that QUEUE_URL contradicts.
    let region = &config.region;
    let detail = match config.url.as_str().contains(region.as_str()) {
        true => format!("{region}, as in QUEUE_URL"),
        false => format!("{region}; QUEUE_URL names no region"),
    };
    Check::pass("region", detail)
}

async fn endpoint(config: &QueueConfig) -> Vec<Check> {
    const NAME: &str = "queue-link";
    const NETWORK: &str = "check the network between here and the queue, HTTPS_PROXY, NO_PROXY and AWS_ENDPOINT_URL_SQS";
    let asked = tokio::time::timeout(PROBE_TIMEOUT, ask_endpoint(config));
    let (name, answer) = tokio::join!(resolve(config), asked);
    let mut checks = vec![name];
    let endpoint = &config.endpoint;
    match answer {
        Ok(Ok(answer)) => {
            let trust = match endpoint.scheme() {
                "https" => "its certificate is trusted",
                _ => "plain http",
            };
            checks.push(Check::pass(NAME, format!("{endpoint} answers, {trust}")));
            checks.extend(answer.clock_skew_secs.map(clock));
        }
        Ok(Err(error)) if error.contains("certificate") => checks.push(Check::fail(
            NAME,
            error,
            "set AWS_CA_BUNDLE to the CA that signed it",
        )),
        Ok(Err(error)) => checks.push(Check::fail(NAME, error, NETWORK)),
        Err(_) => {
            let detail = format!("{endpoint} does not answer in time");
            checks.push(Check::fail(NAME, detail, NETWORK));
        }
    }
    checks
}

async fn resolve(config: &QueueConfig) -> Check {
    let endpoint = &config.endpoint;
    if let Some(proxy) = config.net.proxy_for(endpoint) {
        let proxy = Url::parse(proxy.expose_secret());
        let proxy = proxy.ok().and_then(|url| url.host_str().map(str::to_owned));
        return Check::pass(
            "queue-dns",
            format!("left to the proxy {}", proxy.unwrap_or_default()),
        );
    }
    let host = endpoint.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = endpoint.port_or_known_default().unwrap_or(443);
    dns("queue-dns", "QUEUE_URL", host, port).await
}

/// The skew from which AWS may reject signatures.
const MAX_SKEW: Duration = Duration::from_secs(300);
const DOUBTFUL_SKEW: Duration = Duration::from_secs(60);

fn clock(skew_secs: i64) -> Check {
    const ADVICE: &str = "synchronize the clock of this machine by NTP";
    let off = Duration::from_secs(skew_secs.unsigned_abs());
    let way = if skew_secs < 0 { "ahead of" } else { "behind" };
    let detail = format!("{} s {way} the queue's clock", off.as_secs());
    if off >= MAX_SKEW {
        let detail = format!("{detail}: AWS rejects requests signed 5 minutes off");
        return Check::fail("clock", detail, ADVICE);
    }
    if off > DOUBTFUL_SKEW {
        let detail = format!("{detail}: AWS rejects requests signed 5 minutes off");
        return Check::warn("clock", detail, ADVICE);
    }
    Check::pass(
        "clock",
        format!("within {} s of the queue's clock", off.as_secs() + 1),
    )
}

async fn caller(config: &QueueConfig, edge: &Edge) -> Vec<Check> {
    const NAME: &str = "credentials";
    const NONE: &str = "set static keys, give the pod or instance a role, or check SERVER_API_KEY; docs/aws.md lists the order";
    let loaded = tokio::time::timeout(PROBE_TIMEOUT, Caller::load(config, edge)).await;
    let caller = match loaded {
        Ok(Ok(caller)) => caller,
        Ok(Err(CallerError { kind, detail })) => {
            return vec![match kind {
                Some(kind @ QueueErrorKind::CredentialsExpired) => {
                    Check::fail(NAME, format!("have expired: {detail}"), kind.advice())
                }
                Some(kind @ QueueErrorKind::Clock) => Check::fail(NAME, detail, kind.advice()),
                _ => Check::fail(NAME, detail, NONE),
            }];
        }
        Err(_) => {
            return vec![Check::fail(
                NAME,
                "no credential provider answered in time",
                NONE,
            )];
        }
    };
    let mut checks = vec![credentials(caller.identity.as_ref())];
    let (arn, facts) = tokio::join!(caller.arn(config), caller.look_at_queue(config));
    checks.extend(arn.map(identity));
    checks.extend(queue(facts, config.max_receive_count));
    checks
}

fn credentials(identity: Option<&Identity>) -> Check {
    let detail = match identity {
        None => "known".to_owned(),
        Some(Identity { source, expires_at }) => match expires_at {
            Some(end) => format!("{source}, until {end}"),
            None => source.clone(),
        },
    };
    Check::pass("credentials", detail)
}

fn identity(arn: Result<String, CallerError>) -> Check {
    const NAME: &str = "identity";
    const ADVICE: &str =
        "ignore this if only the queue must be reachable; otherwise allow the network path to STS";
    match arn {
        Ok(arn) => Check::pass(NAME, arn),
        Err(CallerError {
            kind:
                Some(
                    kind @ (QueueErrorKind::Credentials
                    | QueueErrorKind::CredentialsExpired
                    | QueueErrorKind::Clock),
                ),
            detail,
        }) => Check::fail(NAME, detail, kind.advice()),
        // The server is not STS, or STS returns no identity.
        Err(CallerError { detail, .. }) => Check::warn(NAME, detail, ADVICE),
    }
}

fn queue(facts: QueueFacts, max_receive_count: u32) -> Vec<Check> {
    const NAME: &str = "queue";
    let attributes = match facts.attributes {
        Ok(attributes) => attributes,
        Err(error) if error.kind == QueueErrorKind::AccessDenied => {
            let mut checks = vec![Check::warn(
                NAME,
                "sqs:GetQueueAttributes is denied; the worker assumes a visibility timeout of 30 s and no dead-letter queue",
                "allow sqs:GetQueueAttributes on the queue",
            )];
            checks.extend(permissions(facts.permissions, None));
            return checks;
        }
        Err(error) => return vec![failed(NAME, &error)],
    };
    let QueueAttributes {
        waiting,
        kms_key,
        visibility_timeout,
        max_receive_count: redrive,
    } = attributes;
    let count = waiting.as_deref().unwrap_or("an unknown number of");
    let mut checks = vec![Check::pass(NAME, format!("about {count} messages wait"))];
    checks.extend(permissions(facts.permissions, kms_key.as_deref()));
    checks.extend(visibility_timeout.map(visibility));
    checks.push(redrive_policy(redrive, max_receive_count));
    checks
}

fn permissions(tried: Vec<Permission>, kms_key: Option<&str>) -> impl Iterator<Item = Check> {
    tried.into_iter().map(move |permission| {
        let action = permission.action;
        let name = match action {
            "sqs:ReceiveMessage" => "right-receive",
            "sqs:DeleteMessage" => "right-delete",
            _ => "right-visibility",
        };
        let mut check = match permission.answer {
            Ok(()) => Check::pass(name, format!("{action} is allowed")),
            Err(error) if error.kind == QueueErrorKind::AccessDenied => Check::fail(
                name,
                format!("{action} is denied: {}", error.detail),
                format!("allow {action} on the queue"),
            ),
            Err(error) => failed(name, &error),
        };
        if let Some(key) = kms_key.filter(|_| name == "right-receive") {
            check.detail.push_str(&format!(
                "; kms:Decrypt on {key} is required too, and was not tested"
            ));
        }
        check
    })
}

fn failed(name: &'static str, error: &QueueError) -> Check {
    let QueueError { kind, detail } = error;
    Check::fail(name, format!("{kind}: {detail}"), kind.advice())
}

/// The longest time of a batch: a reply of Redis, and then the delete.
const MIN_VISIBILITY_TIMEOUT: Duration = Duration::from_secs(2 + SHORT_CALL_TIMEOUT.as_secs());
const MAX_VISIBILITY_TIMEOUT: Duration = Duration::from_secs(12 * 3600);

fn visibility(timeout: Duration) -> Check {
    const NAME: &str = "visibility-timeout";
    const ADVICE: &str = "set the visibility timeout of the queue to 30 to 60 s";
    let secs = timeout.as_secs();
    if timeout < MIN_VISIBILITY_TIMEOUT {
        let detail = format!(
            "{secs} s: a batch may take {} s if Redis or the queue is slow, and SQS would deliver messages twice",
            MIN_VISIBILITY_TIMEOUT.as_secs()
        );
        return Check::warn(NAME, detail, ADVICE);
    }
    if timeout > MAX_VISIBILITY_TIMEOUT {
        let detail = format!(
            "{secs} s, over 12 hours: SQS redelivers the messages of a lost process only then"
        );
        return Check::warn(NAME, detail, ADVICE);
    }
    Check::pass(NAME, format!("{secs} s"))
}

/// With a smaller count, an outage or a rollout could move good messages to the dead-letter queue.
const MIN_RECEIVE_COUNT: u32 = 5;

fn redrive_policy(redrive: Option<u32>, limit: u32) -> Check {
    const NAME: &str = "redrive-policy";
    match redrive {
        None => Check::warn(
            NAME,
            "none: the worker keeps messages that it cannot apply in a Redis stream instead",
            format!(
                "add a dead-letter queue to the queue, with a maxReceiveCount of {MIN_RECEIVE_COUNT} or more"
            ),
        ),
        Some(count) if count < MIN_RECEIVE_COUNT => Check::warn(
            NAME,
            format!("after {count} deliveries, and each killed process uses up one"),
            format!("set a maxReceiveCount of {MIN_RECEIVE_COUNT} or more"),
        ),
        Some(count) => Check::pass(
            NAME,
            format!("after {count} deliveries (MAX_RECEIVE_COUNT is {limit})"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::*;

    #[test]
    fn a_clock_is_judged_both_ways() {
        for (skew, status, says) in [
            (0, Status::Pass, "within"),
            (-60, Status::Pass, "within"),
            (61, Status::Warn, "61 s behind"),
            (-299, Status::Warn, "299 s ahead"),
            (300, Status::Fail, "300 s behind"),
            (-4000, Status::Fail, "4000 s ahead"),
        ] {
            let found = clock(skew);
            assert_eq!(found.status, status, "{skew}");
            assert!(found.detail.contains(says), "{}", found.detail);
        }
    }

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
            let found = visibility(Duration::from_secs(secs));
            assert_eq!(found.status, status, "{secs}");
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
