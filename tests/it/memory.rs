//! The process without a Redis.

mod clock;
mod customer;
mod journal;
mod kills;
mod letters;
mod process;
mod restart;
mod rule;
mod status;
mod steps;
