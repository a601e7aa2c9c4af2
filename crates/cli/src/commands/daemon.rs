//! `gamut daemon`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `gamut daemon`.
#[derive(Debug, Clone, Args)]
pub struct DaemonArguments {
    /// Where images, volumes and the engine's records are kept
    /// [default: /var/lib/gamut; of an ordinary user ~/.local/share/gamut]
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// Where running workloads are kept track of
    /// [default: /run/gamut; of an ordinary user $XDG_RUNTIME_DIR/gamut]
    #[arg(long, value_name = "DIR")]
    pub run_root: Option<PathBuf>,
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
    /// [default: /gamut; of an ordinary user one that is delegated to him]
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// How containers get their roots from images [default: overlay2 where it can be used]
    #[arg(long, value_name = "DRIVER", value_parser = ["overlay2", "copy"])]
    pub storage_driver: Option<String>,
    /// Give containers user ids of their own, as `--userns auto` does, unless they ask for
    /// `--userns host`
    #[arg(long)]
    pub userns_remap: bool,
    /// Mirrors of registries, and which registries are insecure, as JSON
    /// [default: /etc/gamut/registries.json; of an ordinary user ~/.config/gamut/registries.json,
    /// where that is there]
    #[arg(long, value_name = "FILE")]
    pub registries: Option<PathBuf>,
    /// How much to log
    #[arg(long, value_name = "LEVEL", default_value = "info",
          value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub log_level: String,
    /// Group that may use the socket
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}
