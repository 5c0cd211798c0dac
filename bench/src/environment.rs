//! Reads the settings of the bench from the environment.

use std::env;
use std::str::FromStr;

use anyhow::{Context, Result};

/// Returns the number of a variable.
pub fn number<T: FromStr>(name: &str, default: T) -> Result<T> {
    let Ok(text) = env::var(name) else {
        return Ok(default);
    };
    let number = text.parse().ok();
    number.with_context(|| format!("{name} is not a number"))
}

/// Returns the numbers of a variable, which commas separate.
pub fn numbers<T: FromStr + Clone>(name: &str, default: &[T]) -> Result<Vec<T>> {
    let Ok(text) = env::var(name) else {
        return Ok(default.to_vec());
    };
    let numbers = text
        .split(',')
        .map(|part| part.trim().parse().ok())
        .collect();
    Option::with_context(numbers, || format!("{name} is not a list of numbers"))
}
