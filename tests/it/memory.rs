//! The process without a Redis.

mod clock;
mod kills;
mod process;
mod restart;
mod rule;
