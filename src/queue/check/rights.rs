//! What we may do with the queue, asked in ways that cannot succeed: SQS says "access denied" before
//! it says what else is wrong with them.

use aws_sdk_sqs::Client;

use super::failed;
use crate::check::Check;
use crate::config::QueueConfig;
use crate::queue::error::queue_error;
use crate::queue::{QueueError, QueueErrorKind};

/// No message ever had it.
const NOBODYS: &str = "entitlement-sync-check";

pub async fn check(config: &QueueConfig, client: &Client, kms_key: Option<&str>) -> Vec<Check> {
    let url = config.url.as_str();
    // None at all is a number that SQS refuses; where it is not refused, nothing is hidden.
    let receive = client
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(0)
        .visibility_timeout(0)
        .wait_time_seconds(0)
        .send();
    let delete = client
        .delete_message()
        .queue_url(url)
        .receipt_handle(NOBODYS)
        .send();
    let change = client
        .change_message_visibility()
        .queue_url(url)
        .receipt_handle(NOBODYS)
        .visibility_timeout(0)
        .send();
    let (receive, delete, change) = tokio::join!(receive, delete, change);
    let receive = receive.map(drop).map_err(queue_error);
    let mut of_receive = judge("right-receive", "sqs:ReceiveMessage", receive);
    if let Some(key) = kms_key {
        of_receive.detail.push_str(&format!(
            "; kms:Decrypt on {key} is needed too, and not tried"
        ));
    }
    vec![
        of_receive,
        judge(
            "right-delete",
            "sqs:DeleteMessage",
            delete.map(drop).map_err(queue_error),
        ),
        judge(
            "right-visibility",
            "sqs:ChangeMessageVisibility",
            change.map(drop).map_err(queue_error),
        ),
    ]
}

fn judge(name: &'static str, action: &str, answer: Result<(), QueueError>) -> Check {
    match answer {
        Err(error) if error.kind == QueueErrorKind::AccessDenied => Check::fail(
            name,
            format!("{action} is refused: {}", error.detail),
            format!("allow {action} on the queue"),
        ),
        // Whatever was wrong with the call was found after the right to make it.
        Ok(()) => Check::pass(name, format!("{action} is not refused")),
        Err(error) if is_about_the_call(&error) => {
            Check::pass(name, format!("{action} is not refused"))
        }
        Err(error) => failed(name, &error),
    }
}

/// SQS, in either protocol, and servers that speak as it does.
fn is_about_the_call(error: &QueueError) -> bool {
    [
        "ReceiptHandleIsInvalid",
        "InvalidParameterValue",
        "InvalidReceiptHandle",
        "InvalidAddress",
        "ValidationException",
        "ReadCountOutOfRange",
    ]
    .iter()
    .any(|code| error.detail.contains(code))
}
