//! What a container leaves for the commands that come later, and for its caller.

use gamut_abi::oci::{CONFIG_FILE, GATE_FILE, JAIL_DIRECTORY, MOUNT_FILE, PID_FILE, STATE_FILE};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes process id and start time for the commands that come later.
pub(super) fn write_pid(directory: &str, pid: u32) -> io::Result<()> {
    let start_time = start_time(pid)?;
    fs::write(
        [directory, "/", PID_FILE].concat(),
        [&pid.to_string(), " ", &start_time, "\n"].concat(),
    )
}

/// Writes down which mount is the root of a container that shares its caller's.
pub(super) fn write_root_mount(directory: &str, id: u64, path: &str) -> io::Result<()> {
    let text = [&id.to_string(), " ", path].concat();
    fs::write([directory, "/", MOUNT_FILE].concat(), text)
}

/// Takes that mount away, if there is one.
fn unmount_root(directory: &Path) -> io::Result<()> {
    let text = match fs::read_to_string(directory.join(MOUNT_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let (id, path) = text
        .split_once(' ')
        .and_then(|(id, path)| Some((id.parse().ok()?, path)))
        .ok_or(io::ErrorKind::InvalidData)?;
    gamut_container::unmount_root(path, id).map_err(|error| io::Error::other(error.message))
}

/// Field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
fn start_time(pid: u32) -> io::Result<String> {
    let text = fs::read_to_string(["/proc/", &pid.to_string(), "/stat"].concat())?;
    text.rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(19))
        .map(str::to_owned)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Writes the file that the caller asked for, whole or not at all: it is watched for.
pub(super) fn write_pid_file(path: &str, pid: u32) -> io::Result<()> {
    let temporary = [path, ".", &std::process::id().to_string()].concat();
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&temporary)
        .and_then(|mut file| file.write_all(pid.to_string().as_bytes()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The error that led here is the one worth telling.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes a state directory with all that is ever in it. One that is gone is fine.
///
/// # Errors
/// Those of unlink(2) and rmdir(2); `DirectoryNotEmpty` if it holds something foreign.
pub fn remove_state_directory(directory: &Path) -> io::Result<()> {
    unmount_root(directory)?;
    for name in [GATE_FILE, MOUNT_FILE, PID_FILE, CONFIG_FILE] {
        gone(fs::remove_file(directory.join(name)))?;
    }
    // Never a place of mounts on the host: they are made in the jail's own namespace.
    gone(fs::remove_dir_all(directory.join(JAIL_DIRECTORY)))?;
    gone(fs::remove_file(directory.join(STATE_FILE)))?;
    gone(fs::remove_dir(directory))
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_of_this_process_is_a_number() {
        let text = start_time(std::process::id()).unwrap();
        assert!(text.parse::<u64>().unwrap() > 0, "{text}");
    }

    #[test]
    fn foreign_content_is_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        fs::create_dir(&state).unwrap();
        fs::write(state.join(PID_FILE), "1 1\n").unwrap();
        fs::create_dir_all(state.join(JAIL_DIRECTORY).join("jail/dev")).unwrap();
        fs::write(state.join("foreign"), "").unwrap();
        assert!(remove_state_directory(&state).is_err());
        fs::remove_file(state.join("foreign")).unwrap();
        remove_state_directory(&state).unwrap();
        assert!(!state.exists());
        remove_state_directory(&state).unwrap();
    }

    #[test]
    fn the_pid_file_is_replaced_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "something longer").unwrap();
        write_pid_file(path.to_str().unwrap(), 42).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "42");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
