//! Redis in each topology, with TLS and logins.

mod cluster;
mod login;
mod sentinel;
pub mod tls;
mod tracking;
