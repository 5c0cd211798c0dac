//! Recognises messages that AWS and its libraries put into a queue.

use super::values::Members;
use crate::message::fields::string;
use crate::message::read::Notice;

/// The reason for a message of the SQS extended client.
pub const BODY_IN_S3: &str = "the body is in S3 (SQS extended client), which the worker does not read: configure the sender to put bodies of up to 1 MiB into the message";

/// Returns whether a text that is not JSON is such a pointer, as Python prints it.
pub fn is_pointer_in_text(text: &str) -> bool {
    text.contains("s3BucketName") && text.contains("s3Key")
}

/// Returns whether an object points to a body in S3.
pub fn is_pointer_to_s3(members: &Members<'_>) -> bool {
    let has = |wanted: &str| {
        let mut names = members.0.iter().map(|(name, _)| name);
        names.any(|name| name.eq_ignore_ascii_case(wanted))
    };
    // The second form is that of clients for Node.
    (has("s3BucketName") && has("s3Key")) || has("S3Payload")
}

/// Recognises a message that AWS sends by itself.
pub fn notice_in(members: &Members<'_>) -> Option<Notice> {
    let is = |field: &str, text: &str| {
        let found = members.get(field).and_then(string);
        found.is_some_and(|it| it == text)
    };
    if is("Event", "s3:TestEvent") {
        Some(Notice::S3TestEvent)
    } else if is("notificationType", "AmazonSnsSubscriptionSucceeded") {
        Some(Notice::SesSubscription)
    } else if is("Type", "SubscriptionConfirmation") {
        Some(Notice::SubscriptionConfirmation)
    } else if is("Type", "UnsubscribeConfirmation") {
        Some(Notice::UnsubscribeConfirmation)
    } else {
        None
    }
}
