//! `snapshot`: shows what a file of SNAPSHOT_PATH holds, and checks that it is whole.

mod customer;
mod held;
mod report;

use std::path::{Path, PathBuf};

use entitlement_sync::config;
use entitlement_sync::keys::Keys;
use entitlement_sync::snapshot::{Checked, ExamineError, Examined, Ring, examine};

use super::output::{self, Format};
use super::{BAD_CONFIGURATION, Ended, Failure, NO_INPUT, ids};
use held::Held;
use report::Report;

/// Show or check a snapshot or a journal of SNAPSHOT_PATH
#[derive(clap::Args)]
#[command(
    long_about = "Shows what a snapshot or a journal of SNAPSHOT_PATH holds, or checks that it is whole. The command reads only\n\
        this file, so it works on a copy and beside a running worker. It prints a customer and its entitlements only if\n\
        `inspect --customer` names the customer."
)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    Inspect(Inspect),
    Verify(Verify),
}

/// Show the header, the age and the counts of a file; with its key, also whether it is whole
#[derive(clap::Args)]
#[command(after_help = "\
The key is SNAPSHOT_KEY, MEM_ENCRYPTION_KEY or SNAPSHOT_KEY_PREVIOUS, or the file that SNAPSHOT_KEY_FILE or
SNAPSHOT_KEY_PREVIOUS_FILE names. Without a key, nothing of the output is proven.

With --customer the command needs the key. A snapshot holds the state of the customer, a journal holds its changes.

Exit codes: 0 the file is undamaged; 1 it is damaged, it is not a file of this program, the key is another one, or the
file does not hold the customer; 66 no such file; 78 a wrong key variable, no key for --customer, or a newer format.

Examples:
  entitlement-sync snapshot inspect --customer acme /data/entitlement-sync-0000000007.snapshot
  entitlement-sync snapshot inspect /data/entitlement-sync-0000000007.snapshot
  entitlement-sync snapshot inspect --json /data/entitlement-sync-0000000007.journal | jq .age_secs")]
struct Inspect {
    /// A snapshot or a journal
    file: PathBuf,
    /// Also print what the file holds of this customer; needs the key
    #[arg(long, value_name = "CUSTOMER")]
    customer: Option<String>,
    /// Print this resource of the customer
    #[arg(long, value_name = "RESOURCE", requires = "customer")]
    resource: Option<String>,
    #[command(flatten)]
    format: Format,
}

/// Check that a file is whole, from its header to its last byte
#[derive(clap::Args)]
#[command(after_help = "\
The command needs the key: SNAPSHOT_KEY, MEM_ENCRYPTION_KEY or SNAPSHOT_KEY_PREVIOUS, or the file that SNAPSHOT_KEY_FILE
or SNAPSHOT_KEY_PREVIOUS_FILE names. A journal may end within a frame, for example while a worker writes to it.

Exit codes: 0 the file is whole; 1 it is damaged, or not a file of this program; 66 no such file; 78 no key, another key,
or a newer format.

Example:
  for file in /data/*.snapshot; do entitlement-sync snapshot verify \"$file\" || break; done")]
struct Verify {
    /// A snapshot or a journal
    file: PathBuf,
    #[command(flatten)]
    format: Format,
}

pub fn run(arguments: Arguments) -> anyhow::Result<Ended> {
    let keys = config::snapshot_keys(config::environment());
    let keys = keys.map_err(|errors| Failure::with(BAD_CONFIGURATION, errors))?;
    let ring = (!keys.is_empty()).then(|| Ring::new(keys));
    match arguments.action {
        Action::Inspect(inspect) => inspect.run(ring.as_ref()),
        Action::Verify(verify) => {
            if ring.is_none() {
                return Err(no_key("check a file"));
            }
            let examined = look(&verify.file, ring.as_ref(), |_| ())?;
            if let Ok(examined) = &examined
                && examined.checked == Checked::OtherKey
            {
                return Err(Failure::with(
                    BAD_CONFIGURATION,
                    "the file was written with another key: set SNAPSHOT_KEY to that key",
                ));
            }
            show(&Report::of(&verify.file, &examined), verify.format)
        }
    }
}

impl Inspect {
    fn run(&self, ring: Option<&Ring>) -> anyhow::Result<Ended> {
        let Some(customer) = &self.customer else {
            let examined = look(&self.file, ring, |_| ())?;
            return show(&Report::of(&self.file, &examined), self.format);
        };
        let owner = ids::owner(customer, self.resource.as_deref())?;
        if ring.is_none() {
            return Err(no_key("read a customer"));
        }
        let examined = look(&self.file, None, |_| ())?;
        // Without a header there is nothing to look into.
        let prefix = examined.as_ref().map(|it| it.header.prefix.clone());
        let mut held = Held::new(Keys::new(prefix.unwrap_or_default()), owner);
        let examined = look(&self.file, ring, |record| held.take(record))?;
        let mut report = Report::of(&self.file, &examined);
        // With another key nothing of it is known.
        let is_read = examined.is_ok_and(|it| it.checked != Checked::OtherKey);
        report.customer = (is_read && self.format.is_json()).then(|| held.to_json());
        let ended = show(&report, self.format)?;
        if is_read && !self.format.is_json() {
            held.print()?;
        }
        Ok(match held.is_empty() {
            true => Ended::Found,
            false => ended,
        })
    }
}

fn no_key(purpose: &str) -> anyhow::Error {
    let text = format!("the key is needed to {purpose}: set SNAPSHOT_KEY or SNAPSHOT_KEY_FILE");
    Failure::with(BAD_CONFIGURATION, text)
}

/// Examines a file, and gives its records to `take` if there is a key; `Err` within: why it is none of ours.
fn look(
    file: &Path,
    ring: Option<&Ring>,
    mut take: impl FnMut(&[u8]),
) -> anyhow::Result<Result<Examined, String>> {
    let take = |record: &[u8]| {
        take(record);
        Ok(())
    };
    match examine(file, ring, take) {
        Ok(examined) => Ok(Ok(examined)),
        Err(ExamineError::Unusable(what)) => Ok(Err(what)),
        Err(error @ ExamineError::Io(_)) => {
            let text = format!("{}: {error}", file.display());
            Err(Failure::with(NO_INPUT, text))
        }
        Err(error @ ExamineError::Newer(_)) => {
            let text = format!("{}: {error}", file.display());
            Err(Failure::with(BAD_CONFIGURATION, text))
        }
    }
}

fn show(report: &Report, format: Format) -> anyhow::Result<Ended> {
    if format.is_json() {
        output::json(report)?;
    } else {
        report.print()?;
    }
    Ok(match report.is_sound() {
        true => Ended::Well,
        false => Ended::Found,
    })
}
