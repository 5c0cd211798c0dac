//! Asking before something is destroyed.

use std::io::{BufRead, IsTerminal, Write};

use super::{Failure, USAGE};

/// Whether to go on: by `--yes`, or as whoever sits at the terminal says. Where nobody can be
/// asked, it is an error.
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
