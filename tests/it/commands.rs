//! The commands of an operator.

mod check;
mod dead_letter;
mod inspect;
pub mod messages;
mod peek;
mod purge;
mod stats;
mod warm;
