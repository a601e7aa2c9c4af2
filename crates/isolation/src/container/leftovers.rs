//! What is left of a workload: its status when nobody speaks for it any more, and its removal.

use super::ContainerLevel;
use super::call::Call;
use super::directory::read_record;
use super::pid::PinnedProcess;
use crate::error::Error;
use gamut_abi::control::Verb;
use gamut_abi::status::{ExitStatus, State, Status};
use gamut_cgroup::Group;
use gamut_supervisor::{is_alive, read_status};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Exit code of a workload whose supervisor was killed: its init dies with it, by SIGKILL.
const KILLED: i32 = 128 + libc::SIGKILL;

/// How long a supervisor may take to end its workload when asked, before it is killed.
const GENTLY: Duration = Duration::from_secs(5);

/// How long the kernel may take to end a killed supervisor, or one that has lost its launcher.
const FORCIBLY: Duration = Duration::from_secs(12);

impl ContainerLevel {
    /// How a workload stands, whether its supervisor lives or not.
    pub(super) fn read(&self, operation: &'static str, id: &str) -> Result<Option<Status>, Error> {
        let directory = self.run_root.of(id);
        let fail = |error: io::Error| Error::System {
            operation,
            id: id.to_owned(),
            source: error.into(),
        };
        // First the lock, then the file: what a dead supervisor wrote last is final.
        let alive = is_alive(&directory).map_err(fail)?;
        let status = read_status(&directory).map_err(fail)?;
        match status {
            Some(status) if alive || status.state == State::Exited => Ok(Some(status)),
            Some(status) => Ok(Some(Status {
                pid: 0,
                state: State::Exited,
                exit: Some(killed(&directory)),
                error: "its supervisor died".to_owned(),
                ..status
            })),
            // Being created, by this daemon or by one that has just died.
            None if alive || self.is_being_created(id) || !directory.exists() => Ok(None),
            None => Ok(Some(Status {
                id: id.to_owned(),
                supervisor_pid: 0,
                pid: 0,
                state: State::Exited,
                started_ns: 0,
                restart_count: 0,
                exit: Some(killed(&directory)),
                error: "it was never created completely".to_owned(),
            })),
        }
    }

    /// Ends and removes everything but the writable layer and the log. The caller has the turn.
    pub(super) fn clean_up(&self, call: &Call<'_>) -> Result<(), Error> {
        let directory = self.run_root.of(call.id);
        // Without a launcher, a supervisor that has not started anything leaves by itself.
        self.lock_pending().remove(call.id);
        self.end_supervisor(call, &directory)?;
        let record = read_record(&directory).unwrap_or_else(|error| {
            tracing::warn!(id = call.id, %error, "the record of a workload is damaged");
            None
        });
        let path = record
            .map(|record| record.cgroup_path)
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| self.default_group(call.id));
        let group = Group::at(&self.hierarchies, &path).map_err(|error| call.system(error))?;
        group
            .kill()
            .and_then(|()| group.remove())
            .map_err(|error| call.system(error))?;
        self.run_root
            .remove(call.id)
            .map_err(|error| call.system(error))
    }

    /// Sees to it that no supervisor is left: asked first, then killed.
    fn end_supervisor(&self, call: &Call<'_>, directory: &Path) -> Result<(), Error> {
        let alive = || is_alive(directory).map_err(|error| call.system(error));
        if !alive()? {
            return Ok(());
        }
        if let Ok(mut client) = gamut_supervisor::Client::connect(directory) {
            let stop = Verb::Stop {
                signal: libc::SIGKILL,
                timeout_ms: Some(0),
            };
            // Whatever it answers, what counts is whether it leaves.
            drop(client.request_within(stop, &[], Some(GENTLY.min(call.time_left()))));
        }
        if wait_until(GENTLY.min(call.time_left()), || alive().map(|alive| !alive))? {
            return Ok(());
        }
        // The lock is still held, so that the process that listens is still the supervisor.
        if let Ok(pid) = listener_pid(directory)
            && let Ok(process) = PinnedProcess::open(pid)
            && alive()?
        {
            process.kill().map_err(|error| call.system(error))?;
        }
        if wait_until(FORCIBLY.min(call.time_left()), || {
            alive().map(|alive| !alive)
        })? {
            return Ok(());
        }
        call.check()?;
        Err(call.system("its supervisor does not end"))
    }
}

/// Waits, with growing pauses, until something holds.
fn wait_until(
    limit: Duration,
    mut holds: impl FnMut() -> Result<bool, Error>,
) -> Result<bool, Error> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if holds()? {
            return Ok(true);
        }
        if begun.elapsed() >= limit {
            return Ok(false);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Process id of whoever listens on the control socket (unix(7), `SO_PEERCRED`).
fn listener_pid(directory: &Path) -> io::Result<u32> {
    let opened = File::open(directory)?;
    // By way of /proc, because the path of a socket is short.
    let stream = UnixStream::connect(format!("/proc/self/fd/{}/control.sock", opened.as_raw_fd()))?;
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `length` bytes into `credentials`, which is that long.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    match u32::try_from(credentials.pid) {
        Ok(pid) if result == 0 && pid > 0 => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How a workload ended whose supervisor was killed: no earlier than its last sign of life.
fn killed(directory: &Path) -> ExitStatus {
    let sign = |name: &str| fs::metadata(directory.join(name)).and_then(|file| file.modified());
    let finished_ns = sign("status")
        .or_else(|_| sign("."))
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0);
    ExitStatus {
        code: KILLED,
        signal: libc::SIGKILL,
        out_of_memory: false,
        finished_ns,
    }
}
