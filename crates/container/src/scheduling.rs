//! Priorities, processors, memory policy and execution domain of a process.
//!
//! Sources: sched_setattr(2), ioprio_set(2), sched_setaffinity(2), set_mempolicy(2),
//! personality(2).

use crate::error::{Context, Error};
use crate::sys::{self, Errno, SysResult};
use gamut_abi::plan::{IoPriority, MemoryPolicy, Plan, Process, Scheduler};

/// `IOPRIO_WHO_PROCESS`
const IOPRIO_WHO_PROCESS: libc::c_int = 1;

/// `IOPRIO_CLASS_SHIFT`
const IOPRIO_CLASS_SHIFT: u32 = 13;

/// `SCHED_DEADLINE`
const SCHED_DEADLINE: u32 = 6;

/// `struct sched_attr`, as far as version 0 of it goes.
#[repr(C)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

fn checked(result: libc::c_long) -> SysResult<()> {
    if result < 0 {
        Err(Errno::last())
    } else {
        Ok(())
    }
}

/// Sets what is the process's own, while it still has its privileges.
pub(crate) fn apply(process: &Process) -> Result<(), Error> {
    if let Some(scheduler) = &process.scheduler {
        set_scheduler(scheduler).map_err(|errno| {
            let detail = match errno.0 {
                libc::EPERM if scheduler.policy == SCHED_DEADLINE => {
                    "it takes CAP_SYS_NICE, and all processors: such a process scheduler can't be used together with AllowedCPUs (linux.resources.cpu.cpus)"
                }
                libc::EPERM => "it takes CAP_SYS_NICE, and a control group with a budget for it",
                libc::EBUSY => "the machine has no such processor time to give",
                libc::EINVAL => "this kernel does not take these parameters",
                _ => "",
            };
            Error::with_detail("set the scheduler (process.scheduler)", errno, detail)
        })?;
    }
    if let Some(priority) = process.io_priority {
        set_io_priority(priority).map_err(|errno| {
            let detail = match errno.0 {
                libc::EPERM => "the real-time class takes CAP_SYS_NICE or CAP_SYS_ADMIN",
                _ => "",
            };
            Error::with_detail("set the I/O priority (process.ioPriority)", errno, detail)
        })?;
    }
    Ok(())
}

/// Sets what every process of the container has.
pub(crate) fn apply_to_container(plan: &Plan) -> Result<(), Error> {
    if let Some(policy) = &plan.memory_policy {
        set_memory_policy(policy).map_err(|errno| {
            let detail = match errno.0 {
                libc::EINVAL => "a node is not there, or this kernel lacks the mode or a flag",
                libc::ENOSYS => "this kernel knows nothing of NUMA",
                _ => "",
            };
            Error::with_detail("set the memory policy (linux.memoryPolicy)", errno, detail)
        })?;
    }
    if let Some(persona) = plan.personality {
        // SAFETY: plain call.
        let result = unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(persona)) };
        checked(result).doing("set", "the personality (linux.personality)")?;
    }
    Ok(())
}

fn set_scheduler(scheduler: &Scheduler) -> SysResult<()> {
    let attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).unwrap_or_default(),
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime_ns: scheduler.runtime_ns,
        deadline_ns: scheduler.deadline_ns,
        period_ns: scheduler.period_ns,
    };
    // SAFETY: the attributes are of the size that they say; 0 is this process, and no flags.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) })
}

fn set_io_priority(priority: IoPriority) -> SysResult<()> {
    let value =
        libc::c_int::from(priority.class) << IOPRIO_CLASS_SHIFT | libc::c_int::from(priority.level);
    // SAFETY: plain call; 0 is this process.
    checked(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })
}

fn set_memory_policy(policy: &MemoryPolicy) -> SysResult<()> {
    // The kernel takes one bit less than it is told.
    let bits = policy.nodes.len() * 64 + 1;
    let (nodes, bits) = if policy.nodes.is_empty() {
        (std::ptr::null(), 0)
    } else {
        (policy.nodes.as_ptr(), bits)
    };
    // SAFETY: the words are readable for the number of bits given.
    checked(unsafe { libc::syscall(libc::SYS_set_mempolicy, policy.mode, nodes, bits) })
}

/// Lets a process run on these processors only; 0 is this one. An empty mask changes nothing.
pub(crate) fn set_affinity(pid: u32, mask: &[u64], which: &str) -> Result<(), Error> {
    if mask.is_empty() {
        return Ok(());
    }
    // SAFETY: the mask is readable for its length.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            sys::pid_t(pid),
            size_of_val(mask),
            mask.as_ptr(),
        )
    };
    checked(result).map_err(|errno| {
        let detail = match errno.0 {
            libc::EINVAL => "none of these processors is there and free to use",
            _ => "",
        };
        let what = ["set processors (process.execCPUAffinity.", which, ")"].concat();
        Error::with_detail(&what, errno, detail)
    })
}
