//! `gamut daemon`.

use std::net::SocketAddr;
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
    /// Where to listen, several times if need be: unix:///PATH, or tcp://ADDRESS[:PORT] with
    /// --tlsverify [default: unix://RUN_ROOT/gamut.sock]
    #[arg(short = 'H', long, value_name = "ADDRESS")]
    pub host: Vec<String>,
    /// Serve clients on TCP that show a certificate of the authority
    #[arg(long)]
    pub tlsverify: bool,
    /// Certificate of the authority [default: DOCKER_CERT_PATH or ~/.docker, ca.pem]
    #[arg(long, value_name = "FILE")]
    pub tlscacert: Option<PathBuf>,
    /// Certificate of this engine [default: likewise, cert.pem]
    #[arg(long, value_name = "FILE")]
    pub tlscert: Option<PathBuf>,
    /// Its private key [default: likewise, key.pem]
    #[arg(long, value_name = "FILE")]
    pub tlskey: Option<PathBuf>,
    /// Whom to serve: `none` tells nobody apart, `owner` lets users other than root use only what
    /// they have made
    #[arg(long, value_name = "MODE", default_value = "none", value_parser = ["none", "owner"])]
    pub authorization: String,
    /// Where to serve /metrics, /healthz and /readyz without TLS, and nothing else
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics_addr: Option<SocketAddr>,
    /// Log driver of containers that do not say otherwise
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    pub log_driver: String,
    /// Its options
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
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
    /// How the daemon's own log is written
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
    /// Group that may use the socket
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}
