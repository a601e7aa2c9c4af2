//! Kernel parameters of a container's own namespaces (sysctl(8)).

use crate::error::{Context, Error};
use crate::namespaces::kind_flag;
use crate::sys::{self, FilesystemContext, SysResult, resolve};
use gamut_abi::plan::{NamespaceKind, Plan};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Parameters of the IPC namespace; others of `kernel.` are the whole machine's.
const IPC_PARAMETERS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.auto_msgmni",
];

/// Refuses parameters that would reach beyond the container's own namespaces.
pub(crate) fn check(plan: &Plan) -> Result<(), Error> {
    for (name, _) in &plan.sysctls {
        let dotted = name.replace('/', ".");
        let kind = if IPC_PARAMETERS.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.")
        {
            NamespaceKind::Ipc
        } else if dotted.starts_with("net.") {
            NamespaceKind::Network
        } else if dotted == "kernel.domainname" || dotted == "kernel.hostname" {
            NamespaceKind::Uts
        } else {
            return Err(Error::invalid(
                [
                    "sysctl ",
                    name,
                    " is the whole machine's, not a container's",
                ]
                .concat(),
            ));
        };
        if !plan
            .namespaces
            .iter()
            .any(|namespace| namespace.kind == kind)
        {
            let (_, kind) = kind_flag(kind);
            return Err(Error::invalid(
                [
                    "sysctl ",
                    name,
                    " needs a ",
                    kind,
                    " namespace of the container's own",
                ]
                .concat(),
            ));
        }
    }
    Ok(())
}

/// Sets the parameters, through a proc mount that nobody else has seen yet.
pub(crate) fn apply(plan: &Plan, proc_mount: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    if plan.sysctls.is_empty() {
        return Ok(());
    }
    let own: OwnedFd;
    let proc_mount = match proc_mount {
        Some(mount) => mount,
        None => {
            own = FilesystemContext::open(c"proc")
                .and_then(|context| context.mount(0))
                .doing("mount proc for", "sysctls")?;
            own.as_fd()
        }
    };
    for (name, value) in &plan.sysctls {
        set(proc_mount, name, value)
            .map_err(|errno| Error::with_detail(&["set sysctl ", name].concat(), errno, value))?;
    }
    Ok(())
}

fn set(proc_mount: BorrowedFd<'_>, name: &str, value: &str) -> SysResult<()> {
    // As sysctl(8): dots part the name, unless slashes do; the other one is part of a name then.
    let separator = name.chars().find(|letter| matches!(letter, '.' | '/'));
    let path: String = if separator == Some('/') {
        name.to_owned()
    } else {
        name.chars()
            .map(|letter| match letter {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    };
    let path = sys::c_string(&["sys/", &path].concat())?;
    let within = resolve::BENEATH | resolve::NO_SYMLINKS | resolve::NO_XDEV;
    let file = sys::openat2(proc_mount, &path, libc::O_WRONLY, 0, within)?;
    sys::write(file.as_fd(), value.as_bytes()).map(drop)
}
