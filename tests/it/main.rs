//! The integration tests: the real binary between a real Redis and a local SQS. nextest gives every
//! test its own process, and every test starts the servers it needs and takes them down with it.

#![allow(clippy::unwrap_used)]

mod architecture;
mod aws;
mod batches;
mod check;
mod commands_dead_letter;
mod commands_inspect;
mod commands_messages;
mod commands_peek;
mod commands_purge;
mod commands_stats;
mod commands_warm;
mod delivery;
mod docs;
mod environment;
mod examples;
mod first_contact;
mod fixtures;
mod fuzz;
mod harness;
mod logging;
mod memory;
mod messages;
mod metrics;
mod ordering;
mod permissions;
mod probes;
mod purge;
mod reads_sdk;
mod redirects;
mod redis_cluster;
mod redis_login;
mod redis_sentinel;
mod redis_tls;
mod sdk;
mod sdk4;
mod secrets;
mod shutdown;
mod stand;
mod status;
mod support;
mod surroundings;
mod traces;
mod tracking;
mod ttl;
mod visibility;
mod wrappings;
