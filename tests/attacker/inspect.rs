//! Attacks that look around: descriptors, other processes, sockets.

use crate::kernel::{FCNTL, PTRACE, WAIT4, call, processes as process_ids};
use crate::races::ready;
use std::fs;
use std::io::Write;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};

const F_GETFD: usize = 1;
const PTRACE_SEIZE: usize = 0x4206;
const PTRACE_INTERRUPT: usize = 0x4207;
const PTRACE_DETACH: usize = 17;
const WALL: usize = 0x4000_0000;

/// Every descriptor that this process was born with.
pub fn descriptors() {
    let open: Vec<usize> = (0..20_000)
        .filter(|fd| call(FCNTL, [*fd, F_GETFD, 0, 0, 0, 0]).is_ok())
        .collect();
    for fd in open {
        let target = fs::read_link(format!("/proc/self/fd/{fd}"));
        println!("{fd} {}", target.unwrap_or_default().display());
    }
}

/// What can be had of a process for as long as it is the engine's own program.
fn loot(pid: usize, first_comm: &str) -> Vec<String> {
    let mut got = Vec::new();
    let path = |what: &str| format!("/proc/{pid}/{what}");
    let foreign = || fs::read_to_string(path("comm")).is_ok_and(|comm| comm == first_comm);
    for what in ["environ", "mem", "maps", "auxv"] {
        let opened = fs::File::open(path(what)).and_then(|mut file| {
            let mut byte = [0];
            std::io::Read::read(&mut file, &mut byte)
        });
        // The memory of address 0 is never there; to be let that far is enough.
        let let_in = match opened {
            Ok(_) => true,
            Err(error) => what == "mem" && error.raw_os_error() == Some(5),
        };
        if let_in && foreign() {
            got.push(format!("{what} of {pid} ({first_comm:?})"));
        }
    }
    for what in ["root", "cwd", "exe", "fd/0", "ns/mnt"] {
        if fs::read_link(path(what)).is_ok() && foreign() {
            got.push(format!("{what} of {pid} ({first_comm:?})"));
        }
    }
    if call(PTRACE, [PTRACE_SEIZE, pid, 0, 0, 0, 0]).is_ok() {
        let _ = call(PTRACE, [PTRACE_INTERRUPT, pid, 0, 0, 0, 0]);
        let _ = call(WAIT4, [pid, 0, WALL, 0, 0, 0]);
        if foreign() {
            got.push(format!("ptrace of {pid} ({first_comm:?})"));
        }
        let _ = call(PTRACE, [PTRACE_DETACH, pid, 0, 0, 0, 0]);
    }
    got
}

/// Lies in wait for the engine's processes on their way into the container, for ever.
pub fn processes() {
    let own = usize::try_from(std::process::id()).unwrap_or(0);
    let mut seen = false;
    ready();
    loop {
        for pid in process_ids() {
            let Ok(comm) = fs::read_to_string(format!("/proc/{pid}/comm")) else {
                continue;
            };
            if pid == own || !comm.starts_with("gamut") {
                continue;
            }
            // Shows that the attack is quick enough to meet anybody.
            if !seen {
                seen = true;
                println!("met {pid}");
            }
            for line in loot(pid, &comm) {
                println!("GOT {line}");
            }
            let _ = std::io::stdout().flush();
        }
    }
}

/// Connects to every unix socket that this network namespace tells of.
pub fn sockets() {
    let table = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    for line in table.lines().skip(1) {
        let Some(name) = line.split_whitespace().nth(7) else {
            continue;
        };
        println!("seen {name}");
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(name),
        };
        if address.is_ok_and(|address| UnixStream::connect_addr(&address).is_ok()) {
            println!("GOT {name}");
        }
    }
    println!("done");
}

/// Number of the session keyring.
pub fn keys() {
    const KEYCTL: i64 = 250;
    const SESSION: usize = (-3_isize).cast_unsigned();
    match call(KEYCTL, [0, SESSION, 0, 0, 0, 0]) {
        Ok(id) => println!("session {id}"),
        Err(errno) => println!("refused {errno}"),
    }
}

/// Types on the terminal that is standard input, as its user would, after making it the own one.
pub fn type_on_terminal() {
    const IOCTL: i64 = 16;
    const TIOCSTI: usize = 0x5412;
    const TIOCSCTTY: usize = 0x540e;
    const TIOCLINUX: usize = 0x541c;
    let letter = *b"!\0";
    // Selects text of the screen, and pastes it.
    let paste = *b"\x03";
    for (what, request, argument) in [
        ("typed", TIOCSTI, letter.as_ptr().addr()),
        ("terminal", TIOCSCTTY, 1),
        ("typed afterwards", TIOCSTI, letter.as_ptr().addr()),
        ("pasted", TIOCLINUX, paste.as_ptr().addr()),
    ] {
        if call(IOCTL, [0, request, argument, 0, 0, 0]).is_ok() {
            println!("GOT {what}");
        }
    }
    println!("done");
}
