//! What test runs that were killed have left behind.

use std::fs;
use std::path::Path;
use std::sync::Once;

use crate::Cgroup;
use crate::leaks::processes;

/// Name of everything that test number `number` of this process makes.
pub(crate) fn own_name(number: u32) -> String {
    format!("gamut-test-{}-{number}", std::process::id())
}

/// Ends the processes and removes the control groups and directories of test runs that are no
/// more; once in a test run. A run that still goes on is left alone.
pub(crate) fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for name in abandoned(Path::new("/sys/fs/cgroup")) {
            let cgroup = Cgroup::new(format!("/{name}"));
            // A supervisor is called after its container, as the container's group is; a daemon
            // names its group.
            let children = cgroup.children();
            let mut marks: Vec<String> = children
                .iter()
                .filter_map(|group| Some(group.file_name()?.to_string_lossy().into_owned()))
                .collect();
            marks.push(cgroup.path().to_owned());
            for pid in processes() {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let is_ours = line
                    .split('\0')
                    .any(|word| marks.iter().any(|mark| mark == word));
                if is_ours {
                    kill(pid);
                }
            }
            cgroup.kill();
            cgroup.remove();
        }
        let temporary = std::env::temp_dir();
        for name in abandoned(&temporary) {
            let _ = fs::remove_dir_all(temporary.join(name));
        }
    });
}

/// Names in a directory, and in the hierarchies in it, that belong to processes that are no more.
fn abandoned(directory: &Path) -> Vec<String> {
    let entries = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let top = entries(directory);
    let below = top
        .iter()
        .filter(|path| path.join("cgroup.procs").exists())
        .flat_map(|path| entries(path));
    let mut names: Vec<String> = below
        .chain(top.iter().cloned())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| {
            let owner = name.strip_prefix("gamut-test-").and_then(|rest| {
                let (pid, _) = rest.split_once('-')?;
                pid.parse::<u32>().ok()
            });
            owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Sends SIGKILL.
pub(crate) fn kill(pid: u32) {
    // 0 is what a process of another pid namespace looks like, and what kill(2) takes for us all.
    if let Ok(pid @ 1..) = i32::try_from(pid) {
        // SAFETY: kill(2) takes no pointers.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}
