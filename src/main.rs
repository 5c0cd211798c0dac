//! The story of the process: arguments, configuration, telemetry, run, exit code.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use entitlement_sync::config::{self, Config};
use entitlement_sync::{Ended, runtime, server, shutdown, telemetry};
use tokio_util::sync::CancellationToken;

mod commands;
mod help;

#[derive(Parser)]
#[command(name = "entitlement-sync", version = help::VERSION, about, after_help = help::after())]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Consume the queue (the default)
    Run,
    /// Ask the service on this machine's PORT whether it is alive; exit code 0 or 1
    Healthcheck {
        /// Ask whether it is ready, not only alive
        #[arg(long)]
        ready: bool,
    },
    #[command(flatten)]
    Operator(Box<commands::Command>),
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
}

const BAD_CONFIGURATION: u8 = commands::BAD_CONFIGURATION;
const FAILED: u8 = commands::FAILED;
const OVERRAN: u8 = 75;

fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    match command.unwrap_or(Command::Run) {
        Command::Run => run(),
        Command::Healthcheck { ready } => healthcheck(ready),
        Command::Operator(command) => ExitCode::from(command.run()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "entitlement-sync",
                &mut script,
            );
            ExitCode::from(commands::print(&script))
        }
    }
}

/// For images without a shell or curl. Says why on standard error.
fn healthcheck(ready: bool) -> ExitCode {
    let answer = config::port(config::environment())
        .map_err(anyhow::Error::from)
        .and_then(|port| server::ask(port, if ready { "/readyz" } else { "/livez" }));
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> ExitCode {
    let config = match Config::load(config::environment()) {
        Ok(config) => config,
        Err(errors) => {
            eprintln!("{errors}");
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    match start(config) {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Overran) => {
            tracing::error!(
                "the shutdown took longer than SHUTDOWN_TIMEOUT_SECS; what was in hand comes again"
            );
            ExitCode::from(OVERRAN)
        }
        Err(error) => {
            eprintln!("entitlement-sync: {error:#}");
            ExitCode::from(FAILED)
        }
    }
}

fn start(config: Config) -> anyhow::Result<Ended> {
    let telemetry = telemetry::start(&config.log)?;
    help::log(&config);
    // One provider for Redis, the queue and the Edge API; two without a default would panic.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let runtime = runtime::for_consumers(config.queue.consumers)?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        shutdown::on_signal(shutdown.clone())?;
        entitlement_sync::run(config, telemetry, shutdown).await
    });
    // A call that hangs does not hold up the exit: what was to be finished is finished.
    runtime.shutdown_background();
    ended
}
