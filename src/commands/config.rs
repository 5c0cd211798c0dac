//! `config`: what is in force.

use entitlement_sync::config;
use entitlement_sync::config::{Config, Uses};

use super::output::{self, Format};
use super::{BAD_CONFIGURATION, Ended, Failure};

/// Show the configuration in force, secrets hidden
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    format: Format,
}

pub fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let config = Config::load_for(config::environment(), &Uses::ALL)
        .map_err(|errors| Failure::new(BAD_CONFIGURATION, errors))?;
    if arguments.format.is_json() {
        output::json(&config.effective)?;
    } else {
        let rows = config.effective.iter();
        let rows: Vec<_> = rows
            .map(|(name, value)| [(*name).to_owned(), value.clone()])
            .collect();
        output::table(["VARIABLE", "VALUE"], &rows)?;
    }
    Ok(Ended::Well)
}
