//! `config`: prints the effective configuration and the origin of each value.

use entitlement_sync::config::{self, Config, Entry, Uses};
use serde::Serialize;

use super::output::{self, Format};
use super::{BAD_CONFIGURATION, Ended, Failure};

/// Show the effective configuration and the origin of each value, secrets hidden
///
/// Reads only the environment, not the queue or Redis. Variables without a value are left out;
/// entitlement-sync --help lists all variables. All errors are printed at once, on standard error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  entitlement-sync config
  entitlement-sync config --json | jq '.variables[] | select(.origin != \"default\")'

Exit codes:
  0   well; there may be warnings
  78  wrong configuration")]
pub struct Arguments {
    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Report {
    variables: Vec<Variable>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

#[derive(Serialize)]
struct Variable {
    name: &'static str,
    value: String,
    origin: String,
}

pub fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let environment = config::environment();
    let entries = config::entries(&environment);
    let loaded = Config::load_for(environment, &Uses::ALL);
    let (warnings, errors) = match &loaded {
        Ok(config) => (config.warnings.clone(), Vec::new()),
        Err(errors) => (Vec::new(), errors.0.clone()),
    };
    let variables = entries.into_iter().map(variable).collect();
    let report = Report {
        variables,
        warnings,
        errors,
    };
    if arguments.format.is_json() {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    loaded
        .map(|_| Ended::Well)
        .map_err(|errors| Failure::with(BAD_CONFIGURATION, errors))
}

fn variable(entry: Entry) -> Variable {
    Variable {
        name: entry.name,
        value: entry.value,
        origin: entry.origin.to_string(),
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    let rows = report.variables.iter();
    let rows: Vec<_> = rows
        .map(|it| [it.name.to_owned(), it.value.clone(), it.origin.clone()])
        .collect();
    output::table(["VARIABLE", "VALUE", "FROM"], &rows)?;
    if !report.warnings.is_empty() {
        output::line("")?;
    }
    for warning in &report.warnings {
        output::line(format!(
            "{} {warning}",
            output::doubtful().apply_to("warning")
        ))?;
    }
    Ok(())
}
