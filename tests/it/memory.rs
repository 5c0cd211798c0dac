//! The process without a Redis.

mod kills;
mod process;
mod restart;
mod rule;
