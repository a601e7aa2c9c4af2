//! Resource limits and the preference of the out-of-memory killer.

use crate::error::Error;
use crate::sys::{self, Errno};
use gamut_abi::plan::Rlimit;

/// Names of the limits, by number (getrlimit(2)).
const NAMES: [&str; 16] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

fn name(resource: u32) -> &'static str {
    usize::try_from(resource)
        .ok()
        .and_then(|index| NAMES.get(index))
        .copied()
        .unwrap_or("unknown")
}

fn prlimit(pid: u32, resource: u32, new: Option<libc::rlimit64>) -> Result<libc::rlimit64, Errno> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: new is null or a valid limit, old is writable.
    let result = unsafe { libc::prlimit64(sys::pid_t(pid), resource, new, &raw mut old) };
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(old)
    }
}

/// Raises hard limits of a process that will soon be in a user namespace, where raising is
/// forbidden; 0 is this process. What cannot be raised is clamped later.
pub(crate) fn raise_hard(pid: u32, limits: &[Rlimit]) {
    for limit in limits {
        if let Ok(mut current) = prlimit(pid, limit.resource, None)
            && limit.hard > current.rlim_max
        {
            current.rlim_max = limit.hard;
            let _ = prlimit(pid, limit.resource, Some(current));
        }
    }
}

/// Sets the limits of this process. One that may not be raised is clamped, with a warning.
pub(crate) fn apply<'l>(
    limits: impl Iterator<Item = &'l Rlimit>,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    for limit in limits {
        if limit.soft > limit.hard {
            return Err(Error::invalid(
                [
                    "limit ",
                    name(limit.resource),
                    ": the soft limit is above the hard one",
                ]
                .concat(),
            ));
        }
        let wanted = libc::rlimit64 {
            rlim_cur: limit.soft,
            rlim_max: limit.hard,
        };
        match prlimit(0, limit.resource, Some(wanted)) {
            Ok(_) => {}
            Err(Errno(libc::EPERM)) => clamp(limit, warnings)?,
            Err(errno) => {
                return Err(Error::system(
                    &["set limit ", name(limit.resource)].concat(),
                    errno,
                ));
            }
        }
    }
    Ok(())
}

fn clamp(limit: &Rlimit, warnings: &mut Vec<String>) -> Result<(), Error> {
    let failed = |errno| Error::system(&["set limit ", name(limit.resource)].concat(), errno);
    let current = prlimit(0, limit.resource, None).map_err(failed)?;
    let hard = limit.hard.min(current.rlim_max);
    let clamped = libc::rlimit64 {
        rlim_cur: limit.soft.min(hard),
        rlim_max: hard,
    };
    prlimit(0, limit.resource, Some(clamped)).map_err(failed)?;
    warnings.push(
        [
            "limit ",
            name(limit.resource),
            " is ",
            &clamped.rlim_cur.to_string(),
            ":",
            &hard.to_string(),
            ", not ",
            &limit.soft.to_string(),
            ":",
            &limit.hard.to_string(),
            ": raising it needs CAP_SYS_RESOURCE on the host",
        ]
        .concat(),
    );
    Ok(())
}

/// Sets the preference of the out-of-memory killer for a child. Where lowering is forbidden the
/// child keeps what it has; answers a warning then.
pub(crate) fn set_oom_score(pid: u32, score: i32) -> Result<Option<String>, Error> {
    if !(-1000..=1000).contains(&score) {
        return Err(Error::invalid(
            "oom_score_adj must be between -1000 and 1000",
        ));
    }
    let path = ["/proc/", &pid.to_string(), "/oom_score_adj"].concat();
    match sys::write_file(&path, &score.to_string()) {
        Ok(()) => Ok(None),
        Err(Errno(libc::EACCES | libc::EPERM)) => {
            // 0 is allowed to everyone whom nobody privileged has given more.
            let kept = if score < 0 && sys::write_file(&path, "0").is_ok() {
                "0"
            } else {
                "what it was"
            };
            Ok(Some(
                [
                    "oom_score_adj is ",
                    kept,
                    ", not ",
                    &score.to_string(),
                    ": lowering it needs CAP_SYS_RESOURCE on the host",
                ]
                .concat(),
            ))
        }
        Err(errno) => Err(Error::system("set oom_score_adj", errno)),
    }
}
