//! What a monitor is told about the machine it is to run: a JSON document in its jail.
//!
//! Written by the isolation level, read once by `gamut-monitor` before it gives up its
//! privileges. Paths are those of the jail. The network is not in it: the monitor takes every
//! interface of its network namespace, with its addresses and routes.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Version of [`MonitorConfig`]. Raised when a field changes meaning.
pub const MONITOR_CONFIG_VERSION: u32 = 1;

/// Path in the jail where the monitor finds its [`MonitorConfig`].
pub const CONFIG_PATH: &str = "/monitor.json";

/// A machine and what runs in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitorConfig {
    /// [`MONITOR_CONFIG_VERSION`].
    pub version: u32,
    /// The ELF file.
    pub image_path: String,
    /// Memory of the guest in bytes; `None`: what the image asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Arguments, the program's name first.
    pub args: Vec<String>,
    /// Environment as `NAME=value`.
    pub env: Vec<String>,
    /// Host name.
    #[serde(default)]
    pub hostname: String,
    /// Block devices, in the order of their indices.
    #[serde(default)]
    pub blocks: Vec<BlockConfig>,
    /// An image of a read-only file system for the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rofs_path: Option<String>,
    /// A file in the format of resolv.conf(5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolv_conf_path: Option<String>,
    /// A file in the format of hosts(5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts_path: Option<String>,
    /// What the machine is made with.
    #[serde(default)]
    pub accelerator: Accelerator,
    /// A file that is there already, into which the monitor writes its [`MachineStatus`] once the
    /// machine is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_path: Option<String>,
    /// A directory for files that QEMU is to read, which it does as nobody: needed where there is
    /// no KVM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch_path: Option<String>,
    /// A unix socket on which the monitor serves GDB's remote protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debug_socket_path: Option<String>,
}

/// A block device backed by a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlockConfig {
    /// Where the user wants it, as `/data`.
    pub name: String,
    /// The file.
    pub path: String,
    /// The guest cannot write it.
    #[serde(default)]
    pub read_only: bool,
}

/// What the monitor tells of the machine it has made, as a JSON document. To be read as hostile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// What it was made with: `kvm` or `tcg`.
    pub accelerator: Accelerator,
}

/// What a machine is made with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor's virtualization where /dev/kvm can be opened, else QEMU's translator.
    #[default]
    Auto,
    /// /dev/kvm.
    Kvm,
    /// QEMU's binary translator.
    Tcg,
}
