//! The process without a Redis.

mod customer;
mod kills;
mod process;
mod restart;
mod rule;
mod status;
