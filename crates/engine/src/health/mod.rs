//! Health checks: what is asked for, how a container fares, and the probes.
//!
//! The logic is dockerd's (moby, daemon/health.go): a container is `starting` until a probe
//! succeeds, failures in the start period do not count, and so many failures in a row make it
//! unhealthy. A command is executed in the container as `exec` would; HTTP and TCP probes connect
//! from within its network, without a process.

mod check;
mod command;
mod http;
mod monitor;
mod probe;
mod record;

pub use check::{Healthcheck, Test};
pub use http::fuzz_status_line;
pub use record::{Health, HealthStatus, ProbeResult};

pub(crate) use command::Probes;
