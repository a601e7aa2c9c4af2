//! The bare floor: what the kernel charges for a container, without any runtime around it.
//!
//! `gamut-bench-floor ROOTFS CGROUP FILTER PROGRAM`: makes the control group in every hierarchy,
//! clones into the same namespaces, mounts what the benchmark's bundle mounts, hides the same
//! paths, pivots, installs the same filter (a file of `struct sock_filter`), executes the program,
//! waits for it and removes the control group. No checks beyond "did the call work": it is a
//! yardstick, not a runtime.

use std::ffi::{CString, c_void};
use std::fs;
use std::io::{Error, Result};
use std::process::ExitCode;
use std::ptr::null;

const MASKED: [&str; 8] = [
    "proc/asound",
    "proc/acpi",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/scsi",
    "sys/firmware",
];
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, root, cgroup, filter, program] = arguments.as_slice() else {
        eprintln!("usage: gamut-bench-floor ROOTFS CGROUP FILTER PROGRAM");
        return ExitCode::FAILURE;
    };
    match run(root, cgroup, filter, program) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("gamut-bench-floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &str, cgroup: &str, filter: &str, program: &str) -> Result<u8> {
    let filter = fs::read(filter)?;
    let groups: Vec<String> = fs::read_dir("/sys/fs/cgroup")?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            fs::symlink_metadata(format!("/sys/fs/cgroup/{name}")).is_ok_and(|found| found.is_dir())
        })
        .map(|name| format!("/sys/fs/cgroup/{name}/{cgroup}"))
        .collect();
    for group in &groups {
        fs::create_dir(group)?;
        if group.contains("/cpuset/") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = fs::read(format!("{group}/../{file}"))?;
                fs::write(format!("{group}/{file}"), value)?;
            }
        }
        if group.contains("/pids/") {
            fs::write(format!("{group}/pids.max"), "512")?;
        }
    }
    let mut ends = [0_i32; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    let mut arguments = [0_u64; 11];
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS;
    arguments[0] = u64::from(flags.unsigned_abs());
    arguments[4] = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: a valid clone_args without shared memory; this process has one thread.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            arguments.as_ptr(),
            size_of_val(&arguments),
        )
    };
    if pid == 0 {
        let error = child(root, program, &filter, ends[0]).err();
        eprintln!("gamut-bench-floor: in the container: {error:?}");
        // SAFETY: ends this process.
        unsafe { libc::_exit(1) };
    }
    let pid = i32::try_from(pid).map_err(Error::other)?;
    if pid < 0 {
        return Err(Error::last_os_error());
    }
    for group in &groups {
        fs::write(format!("{group}/cgroup.procs"), pid.to_string())?;
    }
    let mut status = 0;
    // SAFETY: one readable byte; status is writable.
    unsafe {
        libc::write(ends[1], c"g".as_ptr().cast(), 1);
        check(libc::waitpid(pid, &raw mut status, 0))?;
    }
    for group in &groups {
        fs::remove_dir(group)?;
    }
    Ok(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
}

fn check(result: i32) -> Result<()> {
    if result < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}

fn mount(source: &str, target: &str, fstype: &str, flags: u64, data: &str) -> Result<()> {
    let [source, target, fstype, data] =
        [source, target, fstype, data].map(|text| CString::new(text).unwrap_or_default());
    // SAFETY: NUL-terminated texts.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fstype.as_ptr(),
            flags,
            data.as_ptr().cast::<c_void>(),
        )
    })
    .map_err(|error| Error::other(format!("mount {fstype:?} on {target:?}: {error}")))
}

fn child(root: &str, program: &str, filter: &[u8], gate: i32) -> Result<()> {
    let mut byte = 0_u8;
    // SAFETY: plain calls; one writable byte.
    unsafe {
        libc::read(gate, (&raw mut byte).cast(), 1);
        libc::setsid();
        let name = "floor";
        check(libc::sethostname(name.as_ptr().cast(), name.len()))?;
        loopback()?;
    }
    mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "")?;
    mount(root, root, "", libc::MS_BIND | libc::MS_REC, "")?;
    std::env::set_current_dir(root)?;
    let safe = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
    mount("proc", "proc", "proc", safe, "")?;
    mount(
        "tmpfs",
        "dev",
        "tmpfs",
        libc::MS_NOSUID,
        "mode=755,size=65536k",
    )?;
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(format!("dev/{name}"))?;
    }
    let no_exec = libc::MS_NOSUID | libc::MS_NOEXEC;
    mount(
        "devpts",
        "dev/pts",
        "devpts",
        no_exec,
        "newinstance,ptmxmode=0666,mode=0620",
    )?;
    mount("shm", "dev/shm", "tmpfs", safe, "mode=1777,size=65536k")?;
    mount("mqueue", "dev/mqueue", "mqueue", safe, "")?;
    mount("sysfs", "sys", "sysfs", safe | libc::MS_RDONLY, "")?;
    for (name, major, minor) in NODES {
        let path = CString::new(format!("dev/{name}")).unwrap_or_default();
        // SAFETY: a NUL-terminated path.
        unsafe {
            let mode = libc::S_IFCHR | 0o666;
            check(libc::mknod(
                path.as_ptr(),
                mode,
                libc::makedev(major, minor),
            ))?;
        }
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(target, format!("dev/{name}"))?;
    }
    for path in READ_ONLY {
        if fs::exists(path)? {
            mount(path, path, "", libc::MS_BIND | libc::MS_REC, "")?;
            mount(
                path,
                path,
                "",
                libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | safe,
                "",
            )?;
        }
    }
    for path in MASKED {
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => mount("tmpfs", path, "tmpfs", libc::MS_RDONLY, "")?,
            Ok(_) => mount("dev/null", path, "", libc::MS_BIND, "")?,
            Err(_) => {}
        }
    }
    // SAFETY: NUL-terminated texts; the filter is read by the kernel while it lives.
    unsafe {
        let here = c".".as_ptr();
        check(i32::try_from(libc::syscall(libc::SYS_pivot_root, here, here)).unwrap_or(-1))?;
        check(libc::umount2(here, libc::MNT_DETACH))?;
        check(libc::chdir(c"/".as_ptr()))?;
        mount(
            "",
            "/",
            "",
            libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY,
            "",
        )?;
        check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        let filter = libc::sock_fprog {
            len: u16::try_from(filter.len() / 8).unwrap_or(0),
            filter: filter.as_ptr().cast_mut().cast(),
        };
        let installed = libc::syscall(libc::SYS_seccomp, 1, 0, &raw const filter);
        check(i32::try_from(installed).unwrap_or(-1))?;
        let program = CString::new(program)?;
        let arguments = [program.as_ptr(), null()];
        let environment = [null()];
        libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr());
    }
    Err(Error::last_os_error())
}

/// Brings up the loopback.
///
/// # Safety
/// None beyond plain calls on a zeroed request; unsafe because it is all system calls.
unsafe fn loopback() -> Result<()> {
    // SAFETY: all zeros is a valid ifreq, which lives over the call.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(0);
        let result = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request);
        libc::close(socket);
        check(result)
    }
}
