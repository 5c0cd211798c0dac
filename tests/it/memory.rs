//! The process without a Redis.

mod rule;
