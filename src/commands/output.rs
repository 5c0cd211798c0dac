//! Prints tables, or JSON for scripts; colours only on a terminal.

use std::io::{self, IsTerminal, Write};

use console::{Style, measure_text_width};
use serde::Serialize;

/// The output format.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Format {
    /// Print one JSON document, for scripts
    #[arg(long)]
    json: bool,
}

impl Format {
    pub fn is_json(self) -> bool {
        self.json
    }
}

/// Prints a value as JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, value).map_err(io::Error::from)?;
    writeln!(stdout)?;
    Ok(())
}

/// Prints a line.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints rows in columns as wide as their widest cell, except the last. Without rows it prints nothing.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let width = |column: usize| {
        let cells = rows.iter().map(|row| measure_text_width(&row[column]));
        cells.max().unwrap_or(0).max(head[column].len())
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut stdout = io::stdout().lock();
    let head = head.map(|cell| dim().apply_to(cell).to_string());
    for row in std::iter::once(&head).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(
                ' ',
                width + 2 - measure_text_width(cell).min(*width),
            ));
        }
        writeln!(stdout, "{}", line.trim_end())?;
    }
    Ok(())
}

pub fn good() -> Style {
    Style::new().green()
}

pub fn doubtful() -> Style {
    Style::new().yellow()
}

pub fn bad() -> Style {
    Style::new().red().bold()
}

pub fn dim() -> Style {
    Style::new().dim()
}

/// Returns whether standard error, which shows progress, is a terminal.
pub fn has_watcher() -> bool {
    io::stderr().is_terminal()
}

/// Ignores a closed pipe: a reader, for example `head`, may stop early.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
