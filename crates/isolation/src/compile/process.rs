//! `process`: of a container, or a further one that joins it.

use super::field::{absolute, invalid, text};
use super::{scheduling, unsupported};
use crate::error::Error;
use gamut_abi::plan::{self, Rlimit, Seccomp, SeccompListener, TerminalSize};
use oci_spec::runtime::{
    Capabilities, Capability, LinuxCapabilities, PosixRlimit, PosixRlimitType, Process,
};

/// What the caller decides besides the configuration.
#[derive(Debug, Clone, Default)]
pub struct ProcessOptions {
    /// Docker's `user[:group]`, looked up inside the root; wins over `process.user`.
    pub user: Option<String>,
    /// Further groups by name or number.
    pub additional_groups: Vec<String>,
    /// Make the working directory if it is missing.
    pub create_cwd: bool,
    /// Run a minimal init as PID 1.
    pub init: bool,
    /// The system call filter.
    pub seccomp: Option<Seccomp>,
    /// Who hears of its notifications: see [`super::seccomp_listener`].
    pub seccomp_listener: Option<SeccompListener>,
    /// Keep the caller's session keyring (keyrings(7)), as runc's `--no-new-keyring` does.
    pub inherit_keyring: bool,
}

/// Compiles a process; appends to `warnings` what cannot be as asked for.
///
/// # Errors
/// [`Error::Invalid`] naming the field, which begins with `process`.
pub fn compile_process(
    process: &Process,
    options: ProcessOptions,
    warnings: &mut Vec<String>,
) -> Result<plan::Process, Error> {
    unsupported::process(process)?;
    let args = process.args().clone().unwrap_or_default();
    if args.first().is_none_or(String::is_empty) {
        return Err(invalid("process.args", "names no program to run"));
    }
    for (index, argument) in args.iter().enumerate() {
        text(&format!("process.args[{index}]"), argument)?;
    }
    let env = process.env().clone().unwrap_or_default();
    for (index, variable) in env.iter().enumerate() {
        let field = format!("process.env[{index}]");
        text(&field, variable)?;
        if variable.find('=').is_none_or(|at| at == 0) {
            return Err(invalid(
                field,
                format!("{variable:?} is not of the form NAME=value"),
            ));
        }
    }
    let oom_score_adj = process.oom_score_adj();
    if oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return Err(invalid(
            "process.oomScoreAdj",
            "is not between -1000 and 1000",
        ));
    }
    let umask = process.user().umask();
    if umask.is_some_and(|umask| umask > 0o777) {
        return Err(invalid(
            "process.user.umask",
            "is not between 0 and 511 (octal 777)",
        ));
    }
    Ok(plan::Process {
        args,
        env,
        cwd: absolute("process.cwd", process.cwd())?,
        create_cwd: options.create_cwd,
        user: user(process, options.user, options.additional_groups)?,
        umask,
        capabilities: Some(capabilities(process.capabilities().as_ref(), warnings)?),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj,
        seccomp: options.seccomp,
        terminal: terminal(process)?,
        init: options.init,
        seccomp_listener: options.seccomp_listener,
        io_priority: scheduling::io_priority(process)?,
        scheduler: scheduling::scheduler(process)?,
        exec_cpu_affinity: scheduling::exec_cpu_affinity(process)?,
        apparmor_profile: label(
            "process.apparmorProfile",
            process.apparmor_profile().as_deref(),
        )?,
        selinux_label: label("process.selinuxLabel", process.selinux_label().as_deref())?,
        inherit_keyring: options.inherit_keyring,
    })
}

/// A profile or context of a security module; empty is none.
pub(super) fn label(field: &str, label: Option<&str>) -> Result<Option<String>, Error> {
    let Some(label) = label.filter(|label| !label.is_empty()) else {
        return Ok(None);
    };
    text(field, label)?;
    Ok(Some(label.to_owned()))
}

/// Who it runs as: the text to look up wins, then the numbers of the configuration.
fn user(
    process: &Process,
    spec: Option<String>,
    mut groups: Vec<String>,
) -> Result<plan::User, Error> {
    let user = process.user();
    let configured = user.additional_gids().clone().unwrap_or_default();
    if let Some(spec) = &spec {
        text("process.user", spec)?;
    }
    for group in &groups {
        text("process.user.additionalGids", group)?;
        if group.is_empty() {
            return Err(invalid(
                "process.user.additionalGids",
                "a further group has no name",
            ));
        }
    }
    if spec.is_none() && groups.is_empty() {
        return Ok(plan::User::Numeric {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: configured,
        });
    }
    groups.extend(configured.iter().map(u32::to_string));
    let spec = spec.unwrap_or_else(|| format!("{}:{}", user.uid(), user.gid()));
    Ok(plan::User::Lookup {
        spec,
        additional_groups: groups,
    })
}

/// The terminal, with the size it begins with. Without `terminal`, `consoleSize` has no meaning
/// (OCI runtime-spec).
fn terminal(process: &Process) -> Result<Option<TerminalSize>, Error> {
    if !process.terminal().unwrap_or(false) {
        return Ok(None);
    }
    let Some(size) = process.console_size() else {
        return Ok(Some(TerminalSize::default()));
    };
    let characters = |field: &str, value: u64| {
        u16::try_from(value).map_err(|_| {
            invalid(
                field,
                format!("{value} characters are more than a terminal can have (65535)"),
            )
        })
    };
    Ok(Some(TerminalSize {
        rows: characters("process.consoleSize.height", size.height())?,
        columns: characters("process.consoleSize.width", size.width())?,
    }))
}

/// Number of a capability (Linux `include/uapi/linux/capability.h`).
fn capability_number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

fn bits(set: Option<&Capabilities>) -> u64 {
    set.into_iter().flatten().fold(0, |bits, &capability| {
        bits | 1 << capability_number(capability)
    })
}

/// The sets as bit masks. No `capabilities` means none at all: a forgotten field must not give
/// every power away.
fn capabilities(
    sets: Option<&LinuxCapabilities>,
    warnings: &mut Vec<String>,
) -> Result<plan::Capabilities, Error> {
    let Some(sets) = sets else {
        return Ok(plan::Capabilities::default());
    };
    let mut compiled = plan::Capabilities {
        bounding: bits(sets.bounding().as_ref()),
        effective: bits(sets.effective().as_ref()),
        inheritable: bits(sets.inheritable().as_ref()),
        permitted: bits(sets.permitted().as_ref()),
        ambient: bits(sets.ambient().as_ref()),
    };
    if compiled.effective & !compiled.permitted != 0 {
        return Err(invalid(
            "process.capabilities.effective",
            "holds a capability that process.capabilities.permitted lacks (capabilities(7))",
        ));
    }
    let possible = compiled.permitted & compiled.inheritable;
    if compiled.ambient & !possible != 0 {
        for (number, name) in gamut_abi::capability::NAMES.iter().enumerate() {
            if compiled.ambient & !possible & 1 << number != 0 {
                warnings.push(format!(
                    "process.capabilities.ambient: can't raise ambient capability CAP_{name}: \
                     it is not both permitted and inheritable"
                ));
            }
        }
        compiled.ambient &= possible;
    }
    Ok(compiled)
}

/// `RLIMIT_*` number (Linux `include/uapi/asm-generic/resource.h`).
fn rlimit_number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

fn rlimits(list: &[PosixRlimit]) -> Result<Vec<Rlimit>, Error> {
    let mut compiled: Vec<Rlimit> = Vec::with_capacity(list.len());
    for (index, limit) in list.iter().enumerate() {
        let entry = format!("process.rlimits[{index}]");
        let resource = rlimit_number(limit.typ());
        if compiled.iter().any(|known| known.resource == resource) {
            return Err(invalid(
                format!("{entry}.type"),
                format!("{} is there twice", limit.typ()),
            ));
        }
        if limit.soft() > limit.hard() {
            return Err(invalid(
                format!("{entry}.soft"),
                format!("{} is above the hard limit {}", limit.soft(), limit.hard()),
            ));
        }
        compiled.push(Rlimit {
            resource,
            soft: limit.soft(),
            hard: limit.hard(),
        });
    }
    Ok(compiled)
}
