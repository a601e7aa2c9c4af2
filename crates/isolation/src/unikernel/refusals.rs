//! What a unikernel cannot do or have.

use crate::contract::{Feature, Loan};
use crate::error::{Error, Refusal};
use gamut_spec::isolation::IsolationLevel;

/// A capability that is refused.
const fn refusal(
    capability: &'static str,
    reason: &'static str,
    alternative: &'static str,
) -> Refusal {
    Refusal {
        level: IsolationLevel::Unikernel,
        capability,
        reason,
        alternative,
    }
}

pub(super) const CHECKPOINT: Refusal = refusal(
    "checkpoint",
    "saving the state of a machine is not part of this version",
    "stop it and start it again",
);
pub(super) const COPY: Refusal = refusal(
    "cp while it runs",
    "its files are in its own memory, where nothing but itself can read them",
    "stop it first, or keep what matters on a volume",
);
pub(super) const DEBUG: Refusal = refusal(
    "debug on QEMU's translator",
    "only the machine on /dev/kvm has a socket for debuggers",
    "run it where /dev/kvm can be opened",
);
pub(super) const DEVICES: Refusal = refusal(
    "--device",
    "its machine has the devices of its monitor, and none of the host's",
    "give it a block device as a volume: -v /dev/NAME:/data",
);
/// A further process.
pub const EXEC: Refusal = refusal(
    "exec",
    "there is no second process: program and operating system are one",
    "give the program an interface of its own, such as HTTP, or run the image's Linux form",
);
pub(super) const HEALTH_COMMAND: Refusal = refusal(
    "a health check that runs a command",
    "there is nothing that could run it",
    "check by HTTP or TCP: --health-http, --health-tcp",
);
pub(super) const HOST_NETWORK: Refusal = refusal(
    "--network host",
    "its machine has a network stack of its own, with addresses of its own",
    "publish its ports with -p",
);
/// Another amount of memory while it runs.
pub const MEMORY_UPDATE: Refusal = refusal(
    "update --memory",
    "the memory of a machine is given to it when it starts",
    "make it again with another --memory",
);
pub(super) const NETWORK_CHANGES: Refusal = refusal(
    "network connect and disconnect while it runs",
    "its monitor takes the interfaces over when it starts",
    "stop it first",
);
pub(super) const PRIVILEGED: Refusal = refusal(
    "--privileged",
    "it runs on a machine of its own, where no right on the host means anything",
    "leave it out",
);
pub(super) const SHARED_NETWORK: Refusal = refusal(
    "--network container:NAME, with or of it",
    "its monitor takes the interfaces of its network over, whole",
    "put both on the same bridge",
);
pub(super) const SHARED_PROCESSES: Refusal = refusal(
    "--pid and --ipc other than private, with or of it",
    "it has no processes that others could see",
    "leave it out",
);
pub(super) const SIGNALS: Refusal = refusal(
    "signals other than TERM, INT, QUIT and KILL",
    "it has no signals: the first three ask it to end, the last one ends it",
    "give the program an interface of its own",
);
pub(super) const STDIN: Refusal = refusal(
    "stdin (-i)",
    "its console is for output only",
    "give it arguments, variables, or data on a volume",
);
pub(super) const SYSCTLS: Refusal = refusal(
    "--sysctl",
    "there is no Linux kernel inside that would have parameters",
    "leave it out",
);
pub(super) const TERMINAL: Refusal = refusal(
    "a terminal (-t, resize)",
    "its console is for output only",
    "leave -t out, and read its output with logs or attach",
);
/// Its processes.
pub const TOP: Refusal = refusal(
    "top",
    "it has no processes that the host could see",
    "use stats",
);
pub(super) const USER_NAMESPACE: Refusal = refusal(
    "--userns",
    "it has no user ids; its monitor gives up root by itself",
    "leave it out",
);

/// Everything that the level refuses.
pub(super) const REFUSALS: &[Refusal] = &[
    CHECKPOINT,
    DEBUG,
    COPY,
    DEVICES,
    EXEC,
    HEALTH_COMMAND,
    HOST_NETWORK,
    MEMORY_UPDATE,
    NETWORK_CHANGES,
    PRIVILEGED,
    SHARED_NETWORK,
    SHARED_PROCESSES,
    SIGNALS,
    STDIN,
    SYSCTLS,
    TERMINAL,
    TOP,
    USER_NAMESPACE,
];

/// What a unikernel makes of what it is to have: nothing, a warning, or a refusal.
pub(super) fn admit(wanted: &[Feature]) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    for feature in wanted {
        let left_out = match feature {
            Feature::Terminal => return Err(Error::Refused(TERMINAL)),
            Feature::Stdin => return Err(Error::Refused(STDIN)),
            Feature::HostNetwork => return Err(Error::Refused(HOST_NETWORK)),
            Feature::SharedNetwork => return Err(Error::Refused(SHARED_NETWORK)),
            Feature::SharedProcesses => return Err(Error::Refused(SHARED_PROCESSES)),
            Feature::UserNamespace => return Err(Error::Refused(USER_NAMESPACE)),
            Feature::Privileged => return Err(Error::Refused(PRIVILEGED)),
            Feature::Devices => return Err(Error::Refused(DEVICES)),
            Feature::Sysctls => return Err(Error::Refused(SYSCTLS)),
            Feature::HealthCommand => return Err(Error::Refused(HEALTH_COMMAND)),
            Feature::Exec => return Err(Error::Refused(EXEC)),
            Feature::ChangingNetworks => return Err(Error::Refused(NETWORK_CHANGES)),
            // Its monitor hands questions on to the resolver of its network namespace.
            Feature::Names => continue,
            Feature::Confinement => "capabilities and security options",
            Feature::Ulimits => "limits of processes (--ulimit)",
            Feature::Tmpfs => "file systems in memory (--tmpfs)",
            Feature::User => "the user",
            Feature::WorkingDirectory => "the working directory",
            Feature::Init => "the init process (--init)",
        };
        warnings.push(format!("{left_out}: of no use to a unikernel, left out"));
    }
    Ok(warnings)
}

/// Whether something can be lent.
pub(super) fn lend(loan: Loan) -> Result<(), Error> {
    Err(Error::Refused(match loan {
        Loan::Network => SHARED_NETWORK,
        Loan::Processes | Loan::Ipc => SHARED_PROCESSES,
    }))
}
