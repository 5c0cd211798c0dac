//! Keeps the settings of the queue up to date.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::{Queue, QueueError, QueueErrorKind, Settings};

const REFRESH_INTERVAL: Duration = Duration::from_secs(60);
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// After this many failures in a row the defaults are taken for what the queue is set to.
const MAX_RETRIES: u32 = 12;

/// Asks the queue for its settings every minute. Without permission to ask, the defaults stand.
/// `called` is told of each call, for metrics.
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
                    // An old depth would mislead.
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

/// Logs an answer that differs from the one before by more than the depth.
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
            "the queue's settings"
        ),
        Err(error) => tracing::warn!(
            %error,
            "cannot ask for the queue's settings; assuming 30 s of visibility timeout and no dead-letter queue"
        ),
    }
    *logged = Some(news);
}
