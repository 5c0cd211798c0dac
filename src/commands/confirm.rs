//! Asks for confirmation before a destructive action.

use std::io::{BufRead, IsTerminal, Write};

use super::{Failure, USAGE};

/// Returns whether to continue: `--yes`, or the answer at the terminal. Without a terminal it returns an
/// error.
pub fn confirm(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        let text = format!("{question} Not a terminal, so cannot prompt: pass --yes to confirm");
        return Err(Failure::with(USAGE, text));
    }
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}
