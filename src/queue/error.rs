//! Classifies the errors of the AWS SDK.

mod foreign;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;

use super::{QueueError, QueueErrorKind};
use crate::foreign_text::cut_aws;
pub(super) use foreign::described;
use foreign::foreign;

pub(super) fn build_error(error: impl std::fmt::Display) -> QueueError {
    QueueError {
        kind: QueueErrorKind::Failed,
        detail: error.to_string(),
    }
}

pub(super) fn queue_error<E>(error: SdkError<E>) -> QueueError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    if let Some(service) = error.as_service_error()
        && let Some(code) = service.code()
    {
        let message = service.message().unwrap_or("no message");
        return QueueError {
            kind: kind_of_both(code, message),
            detail: format!("{code}: {}", cut_aws(message)),
        };
    }
    if let Some(answer) = error.raw_response() {
        return foreign(answer).unwrap_or_else(|| build_error(explained(&error)));
    }
    let kind = match &error {
        SdkError::TimeoutError(_) => QueueErrorKind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => QueueErrorKind::Timeout,
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
            match kind_of_credentials(&error) {
                Some(kind) => kind,
                None if is_of_proxy(&error) => QueueErrorKind::Proxy,
                None => QueueErrorKind::Unreachable,
            }
        }
        _ => QueueErrorKind::Failed,
    };
    QueueError {
        kind,
        detail: explained(&error),
    }
}

pub(super) type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// Returns an error and its causes, from the outermost to the innermost.
fn causes<'a>(error: Cause<'a>) -> impl Iterator<Item = Cause<'a>> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// Classifies missing credentials: the known error of their source, or only that there are
/// none.
pub(super) fn kind_of_credentials(error: Cause<'_>) -> Option<QueueErrorKind> {
    if !causes(error).any(|error| error.is::<CredentialsError>()) {
        return None;
    }
    let texts: Vec<String> = causes(error).map(ToString::to_string).collect();
    let words = texts
        .iter()
        .flat_map(|text| text.split(|letter: char| !letter.is_ascii_alphanumeric()));
    let kinds = words.map(kind_of).filter(|kind| {
        // A denied role concerns the role, not the queue.
        !matches!(kind, QueueErrorKind::Failed | QueueErrorKind::AccessDenied)
    });
    Some(
        kinds
            .into_iter()
            .next()
            .unwrap_or(QueueErrorKind::Credentials),
    )
}

fn is_of_proxy(error: Cause<'_>) -> bool {
    causes(error).any(|error| error.to_string().contains("proxy authorization required"))
}

/// Joins the texts of an error and its causes. Texts that only say that there was an error are left out, and so
/// are repetitions.
pub(super) fn explained(error: Cause<'_>) -> String {
    const EMPTY: [&str; 9] = [
        "Error",
        "dispatch failure",
        "service error",
        "unhandled error",
        "other",
        "io error",
        "client error (Connect)",
        "an error occurred while loading credentials",
        "the request was not sent",
    ];
    let mut parts: Vec<String> = Vec::new();
    for cause in causes(error) {
        let part = cut_aws(&of_sts(cause).unwrap_or_else(|| cause.to_string()));
        if EMPTY.contains(&part.as_str()) || parts.iter().any(|before| before.contains(&part)) {
            continue;
        }
        parts.retain(|before| !part.contains(before));
        parts.push(part);
    }
    match parts.is_empty() {
        true => error.to_string(),
        false => parts.join(": "),
    }
}

/// Returns whether a signature error concerns the clock: one code means a wrong key or a wrong clock, and only the message differs.
pub(super) fn kind_of_both(code: &str, message: &str) -> QueueErrorKind {
    let message = message.to_ascii_lowercase();
    let is_of_clock = [
        "signature expired",
        "signature not yet current",
        "time too skewed",
    ];
    match kind_of(code) {
        QueueErrorKind::Credentials if is_of_clock.iter().any(|it| message.contains(it)) => {
            QueueErrorKind::Clock
        }
        // The permission for the key of the queue, denied by SQS.
        QueueErrorKind::AccessDenied if message.contains("kms:") => QueueErrorKind::Kms,
        kind => kind,
    }
}

/// Describes an answer of STS that is not an error of STS.
fn of_sts(error: Cause<'_>) -> Option<String> {
    fn odd<E: ProvideErrorMetadata>(error: &SdkError<E>) -> Option<String> {
        let code = error
            .as_service_error()
            .and_then(ProvideErrorMetadata::code);
        let answer = error.raw_response().filter(|_| code.is_none())?;
        Some(format!("{} and without an error of STS", described(answer)))
    }
    let by_keys = error.downcast_ref::<SdkError<AssumeRoleError>>();
    let by_token = error.downcast_ref::<SdkError<AssumeRoleWithWebIdentityError>>();
    by_keys.and_then(odd).or_else(|| by_token.and_then(odd))
}

pub(super) fn kind_of(code: &str) -> QueueErrorKind {
    if let Some(of_key) = code
        .strip_prefix("KMS.")
        .or_else(|| code.strip_prefix("Kms"))
    {
        return match of_key.starts_with("Throttl") {
            true => QueueErrorKind::Throttled,
            false => QueueErrorKind::Kms,
        };
    }
    // `AWS.SimpleQueueService.NonExistentQueue` in the old protocol.
    match code.rsplit('.').next().unwrap_or(code) {
        "RequestThrottled"
        | "RequestThrottledException"
        | "RequestThrottle"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded"
        | "LimitExceededException"
        | "OverLimit"
        | "SlowDown"
        | "RequestLimitExceeded" => QueueErrorKind::Throttled,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "ExpiredTradeInTokenException"
        | "TokenRefreshRequired" => QueueErrorKind::CredentialsExpired,
        "RequestTimeTooSkewed" | "RequestExpired" | "RequestInTheFuture" => QueueErrorKind::Clock,
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "InvalidSignature"
        | "InvalidSecurity"
        | "InvalidSecurityException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "MissingClientTokenId"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidToken"
        | "InvalidTokenId"
        | "IDPRejectedClaim"
        | "IDPRejectedClaimException"
        | "InvalidIdentityToken"
        | "InvalidIdentityTokenException"
        | "JWTPayloadSizeExceededException"
        | "MalformedPolicyDocument"
        | "MalformedPolicyDocumentException"
        | "PackedPolicyTooLarge"
        | "PackedPolicyTooLargeException"
        | "OutboundWebIdentityFederationDisabledException"
        | "RegionDisabledException" => QueueErrorKind::Credentials,
        "AccessDenied"
        | "AccessDeniedException"
        | "NotAuthorized"
        | "NotAuthorizedException"
        | "UnauthorizedOperation"
        | "UnauthorizedAccess"
        | "AuthFailure"
        | "AuthorizationError"
        | "AuthorizationErrorException"
        | "Blocked"
        | "OptInRequired"
        | "OptInRequiredException"
        | "PendingVerification"
        | "SubscriptionRequiredException" => QueueErrorKind::AccessDenied,
        "QueueDoesNotExist"
        | "NonExistentQueue"
        | "QueueDeletedRecently"
        | "InvalidAddress"
        | "InvalidAddressException"
        | "ResourceNotFoundException" => QueueErrorKind::NoQueue,
        "UnknownOperationException"
        | "UnknownOperation"
        | "InvalidAction"
        | "MissingAction"
        | "UnsupportedOperation"
        | "UnsupportedProtocol"
        | "MalformedHttpRequestException"
        | "MalformedQueryString"
        | "NoSuchVersion" => QueueErrorKind::Foreign,
        _ => QueueErrorKind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_apart_by_their_codes() {
        for (code, kind) in [
            ("RequestThrottled", QueueErrorKind::Throttled),
            ("OverLimit", QueueErrorKind::Throttled),
            ("ExpiredToken", QueueErrorKind::CredentialsExpired),
            ("InvalidClientTokenId", QueueErrorKind::Credentials),
            ("AccessDeniedException", QueueErrorKind::AccessDenied),
            (
                "AWS.SimpleQueueService.NonExistentQueue",
                QueueErrorKind::NoQueue,
            ),
            ("QueueDoesNotExist", QueueErrorKind::NoQueue),
            ("RequestTimeTooSkewed", QueueErrorKind::Clock),
            ("RequestExpired", QueueErrorKind::Clock),
            ("KmsAccessDenied", QueueErrorKind::Kms),
            ("KMS.DisabledException", QueueErrorKind::Kms),
            ("KmsInvalidKeyUsage", QueueErrorKind::Kms),
            ("KMS.NotFoundException", QueueErrorKind::Kms),
            ("KmsOptInRequired", QueueErrorKind::Kms),
            ("KmsThrottled", QueueErrorKind::Throttled),
            ("KMS.ThrottlingException", QueueErrorKind::Throttled),
            ("OptInRequired", QueueErrorKind::AccessDenied),
            ("NotAuthorized", QueueErrorKind::AccessDenied),
            ("InvalidAddress", QueueErrorKind::NoQueue),
            ("IDPRejectedClaim", QueueErrorKind::Credentials),
            ("RegionDisabledException", QueueErrorKind::Credentials),
            ("InvalidSecurity", QueueErrorKind::Credentials),
            ("UnknownOperationException", QueueErrorKind::Foreign),
            ("InternalFailure", QueueErrorKind::Failed),
            ("ServiceUnavailable", QueueErrorKind::Failed),
            ("IDPCommunicationError", QueueErrorKind::Failed),
            ("", QueueErrorKind::Failed),
        ] {
            assert_eq!(kind_of(code), kind, "{code}");
        }
    }

    #[test]
    fn the_message_tells_a_clock_from_a_key() {
        for (code, message, kind) in [
            (
                "InvalidSignatureException",
                "Signature expired: 20261126T000000Z is now earlier than 20261126T010000Z",
                QueueErrorKind::Clock,
            ),
            (
                "SignatureDoesNotMatch",
                "Signature not yet current: 20261126T020000Z is still later than 20261126T010000Z",
                QueueErrorKind::Clock,
            ),
            (
                "InvalidSignatureException",
                "The request signature we calculated does not match",
                QueueErrorKind::Credentials,
            ),
            (
                "AccessDeniedException",
                "User is not authorized to perform: kms:Decrypt on the resource",
                QueueErrorKind::Kms,
            ),
        ] {
            assert_eq!(kind_of_both(code, message), kind, "{code}: {message}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Layer {
        Layer {
            text: texts[0],
            source: (texts.len() > 1).then(|| Box::new(layers(&texts[1..]))),
        }
    }

    #[test]
    fn an_error_keeps_what_it_was_about_and_its_cause() {
        for (texts, expected) in [
            (
                &[
                    "dispatch failure",
                    "other",
                    "an error occurred while loading credentials",
                    "IRSA: AWS_WEB_IDENTITY_TOKEN_FILE",
                    "Permission denied (os error 13)",
                ][..],
                "IRSA: AWS_WEB_IDENTITY_TOKEN_FILE: Permission denied (os error 13)",
            ),
            (
                &[
                    "dispatch failure",
                    "io error",
                    "tcp connect error: refused",
                    "refused",
                ],
                "tcp connect error: refused",
            ),
            (&["a", "b: a", "c"], "b: a: c"),
            (&["dispatch failure"], "dispatch failure"),
        ] {
            assert_eq!(explained(&layers(texts)), expected);
        }
    }
}
