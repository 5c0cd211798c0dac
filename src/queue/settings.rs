//! Keeps the settings of the queue up to date.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Queue, QueueError, QueueErrorKind, Settings};

const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Failures in a row after which the worker assumes the defaults of SQS.
const MAX_RETRIES: u32 = 12;

/// Reads the settings of the queue every minute. Without the permission, the defaults apply.
/// `called` gets the result of each call, for metrics.
pub async fn watch_settings<Q: Queue>(
    queue: Arc<Q>,
    sender: watch::Sender<Settings>,
    called: impl Fn(Instant, &Result<Settings, QueueError>),
) {
    let mut logged = None;
    let mut failures = 0;
    loop {
        let started = Instant::now();
        let answer = queue.settings().await;
        called(started, &answer);
        let pause = match &answer {
            Ok(settings) => {
                failures = 0;
                sender.send_replace(*settings);
                REFRESH_INTERVAL
            }
            Err(error) => {
                failures += 1;
                // Other errors, for example a queue that does not exist yet, may pass.
                let is_lasting = error.kind == QueueErrorKind::AccessDenied;
                if is_lasting || failures >= MAX_RETRIES {
                    // An outdated depth would mislead.
                    sender.send_modify(|settings| settings.depth = None);
                    REFRESH_INTERVAL
                } else {
                    RETRY_INTERVAL
                }
            }
        };
        log_news(&answer, &mut logged);
        tokio::time::sleep(pause).await;
    }
}

/// Logs settings that differ from the previous ones in more than the depth.
fn log_news(
    answer: &Result<Settings, QueueError>,
    logged: &mut Option<Result<Settings, QueueErrorKind>>,
) {
    let news = match answer {
        Ok(settings) => Ok(Settings {
            depth: None,
            ..*settings
        }),
        Err(error) => Err(error.kind),
    };
    if logged.as_ref() == Some(&news) {
        return;
    }
    match answer {
        Ok(settings) => tracing::info!(
            visibility_timeout_secs = settings.visibility_timeout.as_secs(),
            redrive_after = settings.max_receive_count,
            "settings of the queue read"
        ),
        Err(error) => tracing::warn!(
            %error,
            "cannot read the queue's settings; the worker assumes a visibility timeout of 30 s and no dead-letter queue"
        ),
    }
    *logged = Some(news);
}
