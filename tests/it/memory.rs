//! The process without a Redis.

mod process;
mod restart;
mod rule;
