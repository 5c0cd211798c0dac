//! The commands for operators, one file or folder each. Each `--help` says what the command does, what it reads and
//! writes, and its exit codes.

mod apply;
mod bulk;
mod check;
mod config;
mod confirm;
mod dead_letter;
mod explain;
mod ids;
mod inspect;
mod messages;
mod output;
mod peek;
mod progress;
mod publish;
mod purge;
mod session;
mod snapshot;
mod stats;
mod verify;
mod warm;
mod when;

use clap::Subcommand;

/// The result of a command that did not fail. docs/commands.md documents the exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Well,
    /// The command succeeded and found something that an operator should look at.
    Found,
}

/// A failure with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Failure {
    pub code: u8,
    text: String,
}

/// Wrong arguments.
pub const USAGE: u8 = 2;
/// A file is missing or unreadable.
pub const NO_INPUT: u8 = 66;
/// Redis, the queue or the Edge API is unreachable.
pub const UNAVAILABLE: u8 = 69;
/// A failure without a code of its own.
pub const FAILED: u8 = 70;
/// Credentials or permissions are missing.
pub const NO_PERMISSION: u8 = 77;
pub const BAD_CONFIGURATION: u8 = 78;
/// SIGINT or SIGTERM stopped the command.
pub const INTERRUPTED: u8 = 130;

impl Failure {
    pub fn with(code: u8, text: impl std::fmt::Display) -> anyhow::Error {
        let text = format!("{text:#}");
        Self { code, text }.into()
    }
}

#[derive(Subcommand)]
pub enum Command {
    Check(check::Arguments),
    Config(config::Arguments),
    DeadLetter(dead_letter::Arguments),
    Inspect(inspect::Arguments),
    Purge(purge::Arguments),
    Stats(stats::Arguments),
    Peek(peek::Arguments),
    Explain(explain::Arguments),
    Apply(apply::Arguments),
    Publish(publish::Arguments),
    Warm(warm::Arguments),
    Verify(verify::Arguments),
    Snapshot(snapshot::Arguments),
}

/// Prints a text; returns the exit code.
pub fn print(text: &[u8]) -> u8 {
    match std::io::Write::write_all(&mut std::io::stdout(), text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => FAILED,
        _ => 0,
    }
}

impl Command {
    /// Runs the command and prints an error to standard error. Returns the exit code.
    pub fn run(self) -> u8 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let ended = match runtime {
            Ok(runtime) => {
                let ended = runtime.block_on(self.perform());
                runtime.shutdown_background();
                ended
            }
            Err(error) => Err(error.into()),
        };
        match ended {
            Ok(Ended::Well) => 0,
            Ok(Ended::Found) => 1,
            Err(error) if output::is_closed_pipe(&error) => 0,
            Err(error) => {
                eprintln!("entitlement-sync: {error:#}");
                error
                    .downcast_ref::<Failure>()
                    .map_or(FAILED, |failure| failure.code)
            }
        }
    }

    async fn perform(self) -> anyhow::Result<Ended> {
        match self {
            Self::Check(arguments) => check::run(arguments).await,
            Self::Config(arguments) => config::run(arguments),
            Self::DeadLetter(arguments) => dead_letter::run(arguments).await,
            Self::Inspect(arguments) => inspect::run(arguments).await,
            Self::Purge(arguments) => purge::run(arguments).await,
            Self::Stats(arguments) => stats::run(arguments).await,
            Self::Peek(arguments) => peek::run(arguments).await,
            Self::Explain(arguments) => explain::run(arguments).await,
            Self::Apply(arguments) => apply::run(arguments).await,
            Self::Publish(arguments) => publish::run(arguments).await,
            Self::Warm(arguments) => warm::run(arguments).await,
            Self::Verify(arguments) => verify::run(arguments).await,
            Self::Snapshot(arguments) => snapshot::run(arguments),
        }
    }
}
