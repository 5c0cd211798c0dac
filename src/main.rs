//! Starts the process: reads arguments and configuration, starts telemetry, runs, and sets the exit code.

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use entitlement_sync::app;
use entitlement_sync::config::{self, Config, Uses};
use entitlement_sync::shutdown::{Ended, FLUSH_TIMEOUT, Signals};
use entitlement_sync::telemetry::{self, Telemetry, print};
use entitlement_sync::{runtime, saving, serve, server};

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
    /// Consume the queue (the default), and run the read API if READ_PORT is set
    Run,
    /// Run only the read API, on READ_PORT or 4001, without consuming the queue
    Serve,
    /// Probe the service on this machine's PORT; exit code 0 if it is alive, else 1
    Healthcheck {
        /// Probe whether it is ready, not only alive
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
const SHUTDOWN_OVERRAN: u8 = 75;

fn main() -> ExitCode {
    // Comes first: until then a signal ends the worker without a drain. Commands keep the default handlers.
    let is_worker = std::env::args_os()
        .nth(1)
        .is_none_or(|command| command == "run" || command == "serve");
    let signals = is_worker.then(Signals::register);
    let Arguments { command } = Arguments::parse();
    match command.unwrap_or(Command::Run) {
        Command::Run => run(Role::Worker, signals.unwrap_or_else(Signals::register)),
        Command::Serve => run(Role::Reader, signals.unwrap_or_else(Signals::register)),
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

/// Probes the service, for images without a shell or curl. Prints the reason to standard error.
fn healthcheck(ready: bool) -> ExitCode {
    let answer = config::port(config::environment())
        .map_err(anyhow::Error::from)
        .and_then(|port| server::ask(port, if ready { "/readyz" } else { "/livez" }));
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print(format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The role of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Worker,
    Reader,
}

fn run(role: Role, signals: std::io::Result<Signals>) -> ExitCode {
    let uses = match role {
        Role::Worker => &Uses::ALL,
        Role::Reader => &Uses::SERVE,
    };
    let config = match Config::load_for(config::environment(), uses) {
        Ok(config) => config,
        Err(errors) => {
            print(errors.to_string());
            return ExitCode::from(BAD_CONFIGURATION);
        }
    };
    let telemetry = match telemetry::start(&config.log) {
        Ok(telemetry) => telemetry,
        Err(error) => {
            print(format!("entitlement-sync: {error:#}"));
            return ExitCode::from(FAILED);
        }
    };
    let lines = telemetry.lines.clone();
    let ended = start(role, config, telemetry, signals);
    if let Ok(Ended::Overran) = ended {
        tracing::error!(
            "the shutdown took longer than SHUTDOWN_TIMEOUT_SECS; SQS redelivers the messages in flight"
        );
    }
    lines.flush(FLUSH_TIMEOUT);
    match ended {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Overran) => ExitCode::from(SHUTDOWN_OVERRAN),
        Err(error) => {
            print(format!("entitlement-sync: {error:#}"));
            ExitCode::from(match saving::is_configuration(&error) {
                true => BAD_CONFIGURATION,
                false => FAILED,
            })
        }
    }
}

fn start(
    role: Role,
    config: Config,
    telemetry: Telemetry,
    signals: std::io::Result<Signals>,
) -> anyhow::Result<Ended> {
    let lines = telemetry.lines.clone();
    let shutdown = signals.and_then(|signals| {
        signals.watch(move |code| {
            lines.flush(FLUSH_TIMEOUT);
            std::process::exit(code)
        })
    })?;
    match role {
        Role::Worker => help::log(&config),
        Role::Reader => help::log_reader(&config),
    }
    // One provider for Redis, the queue and the Edge API; two without a default would panic.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is already installed"))?;
    let runtime = runtime::for_consumers(config.queue.consumers)?;
    let ended = match role {
        Role::Worker => runtime.block_on(app::run(config, telemetry, shutdown)),
        Role::Reader => runtime.block_on(serve::serve(config, telemetry, shutdown)),
    };
    // A hanging call does not delay the exit: the work is finished at this point.
    runtime.shutdown_background();
    ended
}
