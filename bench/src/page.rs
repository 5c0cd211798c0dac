//! The results in docs/performance.md, and where and when they were measured.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Puts the text between the marks of this name.
pub fn replace(docs: &Path, name: &str, text: &str) -> Result<()> {
    let (begin, end) = (
        format!("<!-- {name}: begin -->"),
        format!("<!-- {name}: end -->"),
    );
    let page = docs.join("performance.md");
    let before = fs::read_to_string(&page).context("docs/performance.md")?;
    let (head, rest) = before
        .split_once(&begin)
        .with_context(|| format!("docs/performance.md has lost its mark {begin}"))?;
    let (_, tail) = rest
        .split_once(&end)
        .with_context(|| format!("docs/performance.md has lost its mark {end}"))?;
    fs::write(&page, format!("{head}{begin}\n{text}{end}{tail}"))?;
    Ok(())
}

/// The machine, the day, the command and the number of rounds.
pub fn heading(rounds: usize) -> Result<String> {
    let rounds = match rounds {
        1 => "one round, so not to be relied on".to_owned(),
        rounds => format!("{rounds} rounds, the order turned; median (least–most)"),
    };
    Ok(format!(
        "{}, {} cores, Linux {}; {}; `{}`; {rounds}.",
        cpu_model(),
        cores(),
        fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        date(),
        std::env::var("BENCH_COMMAND").unwrap_or_else(|_| "script/bench".into()),
    ))
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or("unknown CPU", |(_, model)| model).to_owned()
}

/// The day, in UTC.
fn date() -> String {
    let days = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs() / 86_400) as i64;
    // Howard Hinnant's civil_from_days, for days since 1970.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let of_era = z.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}
