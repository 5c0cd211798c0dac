//! Tests the caller's permissions by calls that cannot succeed: SQS checks access before the rest of a
//! call.

use aws_sdk_sqs::Client;

use crate::config::QueueConfig;
use crate::queue::QueueError;
use crate::queue::error::queue_error;

/// The result of a call that needs one permission.
#[derive(Debug)]
pub struct Permission {
    /// For example `sqs:DeleteMessage`.
    pub action: &'static str,
    /// `Ok` if the permission was not denied.
    pub answer: Result<(), QueueError>,
}

/// A receipt handle that no message has.
const INVALID_RECEIPT: &str = "entitlement-sync-check";

/// Error codes for an invalid call, of SQS in both protocols and of compatible servers.
const INVALID_CALL_CODES: [&str; 6] = [
    "ReceiptHandleIsInvalid",
    "InvalidParameterValue",
    "InvalidReceiptHandle",
    "InvalidAddress",
    "ValidationException",
    "ReadCountOutOfRange",
];

pub(super) async fn try_all(config: &QueueConfig, client: &Client) -> Vec<Permission> {
    let url = config.url.as_str();
    // SQS rejects a receive of zero messages. A server that accepts it hides no message.
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
        .receipt_handle(INVALID_RECEIPT)
        .send();
    let change = client
        .change_message_visibility()
        .queue_url(url)
        .receipt_handle(INVALID_RECEIPT)
        .visibility_timeout(0)
        .send();
    let (receive, delete, change) = tokio::join!(receive, delete, change);
    vec![
        permission("sqs:ReceiveMessage", receive.map(drop).map_err(queue_error)),
        permission("sqs:DeleteMessage", delete.map(drop).map_err(queue_error)),
        permission(
            "sqs:ChangeMessageVisibility",
            change.map(drop).map_err(queue_error),
        ),
    ]
}

fn permission(action: &'static str, answer: Result<(), QueueError>) -> Permission {
    let answer = match answer {
        Err(error) if is_about_the_call(&error) => Ok(()),
        answer => answer,
    };
    Permission { action, answer }
}

fn is_about_the_call(error: &QueueError) -> bool {
    INVALID_CALL_CODES
        .iter()
        .any(|code| error.detail.contains(code))
}
