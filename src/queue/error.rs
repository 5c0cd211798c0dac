//! What the SDK's errors mean.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};

use super::{QueueError, QueueErrorKind};

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
    let kind = match &error {
        SdkError::TimeoutError(_) => QueueErrorKind::Timeout,
        SdkError::DispatchFailure(failure) if failure.is_timeout() => QueueErrorKind::Timeout,
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
            if is_credentials(&error) && is_expired(&error) {
                QueueErrorKind::CredentialsExpired
            } else if is_credentials(&error) {
                QueueErrorKind::Credentials
            } else {
                QueueErrorKind::Unreachable
            }
        }
        SdkError::ServiceError(service) => kind_of(service.err().code().unwrap_or_default()),
        _ => QueueErrorKind::Failed,
    };
    let detail = match error.as_service_error() {
        Some(service) => {
            let code = service.code().unwrap_or("unknown error");
            format!("{code}: {}", service.message().unwrap_or("no message"))
        }
        None => innermost(&error),
    };
    QueueError { kind, detail }
}

pub(super) type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// An error and its causes, from the top to the bottom.
fn causes<'a>(error: Cause<'a>) -> impl Iterator<Item = Cause<'a>> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

fn is_credentials(error: Cause<'_>) -> bool {
    causes(error).any(|error| error.is::<CredentialsError>())
}

/// Credentials were to be had by others, such as keys or a token, that STS says have expired.
pub(super) fn is_expired(error: Cause<'_>) -> bool {
    causes(error).any(|error| error.to_string().contains("ExpiredToken"))
}

/// The cause at the bottom says most: "connection refused" rather than "dispatch failure".
pub(super) fn innermost(error: Cause<'_>) -> String {
    causes(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

pub(super) fn kind_of(code: &str) -> QueueErrorKind {
    // `AWS.SimpleQueueService.NonExistentQueue` in the old protocol.
    match code.rsplit('.').next().unwrap_or(code) {
        "RequestThrottled"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException"
        | "OverLimit"
        | "SlowDown"
        | "RequestLimitExceeded"
        | "KmsThrottled" => QueueErrorKind::Throttled,
        "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" | "TokenRefreshRequired" => {
            QueueErrorKind::CredentialsExpired
        }
        "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "InvalidSecurity"
        | "MissingAuthenticationToken"
        | "IncompleteSignature"
        | "InvalidToken" => QueueErrorKind::Credentials,
        "AccessDenied" | "AccessDeniedException" | "KmsAccessDenied" | "NotAuthorized" => {
            QueueErrorKind::AccessDenied
        }
        "QueueDoesNotExist" | "NonExistentQueue" | "QueueDeletedRecently" => {
            QueueErrorKind::NoQueue
        }
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
            ("InternalFailure", QueueErrorKind::Failed),
            ("", QueueErrorKind::Failed),
        ] {
            assert_eq!(kind_of(code), kind, "{code}");
        }
    }
}
