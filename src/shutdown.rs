//! SIGTERM and SIGINT become a token that everything else watches.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `shutdown` on the first signal and exits the process on the second: whoever asks twice
/// does not want to wait. The exit code is then 128 plus the signal's number.
///
/// The handlers are in place when this returns: as process 1 of a container there is no default.
pub fn on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let name = next(&mut terminate, &mut interrupt).await.0;
        tracing::info!(
            signal = name,
            "shutting down; a second signal exits at once"
        );
        shutdown.cancel();
        let (name, number) = next(&mut terminate, &mut interrupt).await;
        tracing::warn!(
            signal = name,
            "second signal, exiting at once; what was in hand comes again"
        );
        std::process::exit(128 + number);
    });
    Ok(())
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = terminate.recv() => ("SIGTERM", 15),
        _ = interrupt.recv() => ("SIGINT", 2),
    }
}
