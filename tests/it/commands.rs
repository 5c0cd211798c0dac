//! The commands of an operator.

mod check;
mod dead_letter;
mod inspect;
mod messages;
mod peek;
mod purge;
mod stats;
mod warm;
