//! Labels of the security modules: what a program is to run under.
//!
//! Sources: apparmor(7), Linux `Documentation/admin-guide/LSM/`, proc_pid_attr(5).

use crate::error::Error;
use crate::sys::{self, Errno};
use gamut_abi::control::FailureKind;
use gamut_abi::plan::Process;

/// Longest file that is looked at, in bytes.
const MAX_FILE_BYTES: usize = 1 << 16;

/// Refuses labels of a security module that the host does not have: a container that is to be
/// confined must not run without.
pub(crate) fn check(process: &Process) -> Result<(), Error> {
    let refuse = |field: &str, module: &str| {
        Err(Error::invalid(
            [
                field,
                ": ",
                module,
                " is not enabled on this host; leave the field out, or enable it at boot",
            ]
            .concat(),
        )
        .of_kind(FailureKind::Unsupported))
    };
    if is_confined(process) && !has_apparmor() {
        return refuse("process.apparmorProfile", "AppArmor");
    }
    if process.selinux_label.is_some() && !has_selinux() {
        return refuse("process.selinuxLabel", "SELinux");
    }
    Ok(())
}

/// Refuses a label of file systems that no SELinux would look at.
pub(crate) fn check_mounts(label: Option<&str>) -> Result<(), Error> {
    if label.is_some() && !has_selinux() {
        return Err(Error::invalid(
            "linux.mountLabel: SELinux is not enabled on this host; leave the field out",
        )
        .of_kind(FailureKind::Unsupported));
    }
    Ok(())
}

fn is_confined(process: &Process) -> bool {
    // A host without AppArmor runs everything unconfined.
    process
        .apparmor_profile
        .as_ref()
        .is_some_and(|profile| profile != "unconfined")
}

fn read(path: &std::ffi::CStr) -> Option<Vec<u8>> {
    let file = sys::open(sys::cwd(), path, libc::O_RDONLY).ok()?;
    sys::read_all(std::os::fd::AsFd::as_fd(&file), MAX_FILE_BYTES).ok()
}

fn has_apparmor() -> bool {
    read(c"/sys/module/apparmor/parameters/enabled").is_some_and(|text| text.starts_with(b"Y"))
}

/// The file system of its policy is registered only where SELinux is on.
fn has_selinux() -> bool {
    read(c"/proc/filesystems")
        .is_some_and(|text| String::from_utf8_lossy(&text).contains("selinuxfs"))
}

/// Sets what the next execve of this process, or of a child, changes to. Has to happen while the
/// host's own /proc is in sight, which no image can have replaced (CVE-2019-16884).
pub(crate) fn set_for_execve(process: &Process) -> Result<(), Error> {
    if is_confined(process)
        && let Some(profile) = &process.apparmor_profile
    {
        let text = ["exec ", profile].concat();
        // The second is that of kernels before 5.8, which had one module at a time.
        let written = write("/proc/self/attr/apparmor/exec", &text).or_else(|errno| match errno {
            Errno(libc::ENOENT) => write("/proc/self/attr/exec", &text),
            other => Err(other),
        });
        written.map_err(|errno| {
            let detail = match errno.0 {
                libc::ENOENT => "no such profile is loaded",
                _ => "",
            };
            let what = ["apply AppArmor profile ", profile].concat();
            Error::with_detail(&what, errno, detail)
        })?;
    }
    if let Some(label) = &process.selinux_label {
        write("/proc/self/attr/exec", label).map_err(|errno| {
            let detail = match errno.0 {
                libc::EINVAL => "the policy has no such context",
                _ => "",
            };
            Error::with_detail(&["apply SELinux label ", label].concat(), errno, detail)
        })?;
    }
    Ok(())
}

fn write(path: &str, text: &str) -> sys::SysResult<()> {
    let file = sys::open(sys::cwd(), &sys::c_string(path)?, libc::O_WRONLY)?;
    let file = std::os::fd::AsFd::as_fd(&file);
    if sys::filesystem_magic(file)? != libc::PROC_SUPER_MAGIC {
        return Err(Errno(libc::EINVAL));
    }
    sys::write(file, text.as_bytes()).map(drop)
}
