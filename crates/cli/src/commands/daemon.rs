//! `gamut daemon`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `gamut daemon`.
#[derive(Debug, Clone, Args)]
pub struct DaemonArguments {
    /// Where images, volumes and the engine's records are kept
    #[arg(long, value_name = "DIR", default_value = "/var/lib/gamut")]
    pub data_root: PathBuf,
    /// Where running workloads are kept track of
    #[arg(long, value_name = "DIR", default_value = "/run/gamut")]
    pub run_root: PathBuf,
    /// Socket to listen on [default: RUN_ROOT/gamut.sock]
    #[arg(short = 'H', long, value_name = "unix:///PATH")]
    pub host: Option<String>,
    /// Name of the default network's bridge
    #[arg(long, value_name = "NAME", default_value = "gamut0")]
    pub bridge: String,
    /// Addresses of the default network [default: one that no route of the host overlaps]
    #[arg(long, value_name = "CIDR")]
    pub subnet: Option<String>,
    /// Control group below which workloads run
    #[arg(long, value_name = "PATH", default_value = "/gamut")]
    pub cgroup_parent: String,
    /// Mirrors of registries, and which registries are insecure, as JSON
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/gamut/registries.json"
    )]
    pub registries: PathBuf,
    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info",
          value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: String,
    /// Group that may use the socket
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}
