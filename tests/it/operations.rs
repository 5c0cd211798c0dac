//! Configuration, AWS, observability, and starting and stopping.

mod aws;
mod environment;
mod logging;
mod metrics;
mod permissions;
mod probes;
mod redirects;
mod secrets;
mod shutdown;
mod status;
mod surroundings;
mod traces;
