//! Starts the daemon when nothing listens on the default socket.

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;

use crate::error::Error;

/// How long the daemon may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
/// Between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(5);
const LOG_NAME: &str = "daemon.log";

/// Starts `gamut daemon` of this executable, detached, its log beside the socket; connects as
/// soon as it listens.
///
/// # Errors
/// When it cannot be started, exits, or does not listen within ten seconds. If two commands start
/// one at the same time, the second daemon finds the first and exits: only the socket decides.
pub async fn start_and_connect(socket: &Path) -> Result<UnixStream, Error> {
    let directory = socket.parent().unwrap_or(Path::new("/"));
    let mode = if gamut_rootless::is_ordinary_user() {
        0o700
    } else {
        0o755
    };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(directory)
        .map_err(Error::io(format!("create {}", directory.display())))?;
    let log_path = directory.join(LOG_NAME);
    let open_log = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&log_path)
            .map_err(Error::io(format!("open {}", log_path.display())))
    };
    let program = std::env::current_exe().map_err(Error::io("find the gamut executable"))?;
    let mut command = Command::new(&program);
    command
        .arg("daemon")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(open_log()?)
        .stderr(open_log()?);
    // SAFETY: setsid(2) is async-signal-safe and touches no memory of this process.
    unsafe {
        command.pre_exec(|| {
            // Fails only for a group leader, which a fresh child is not.
            libc::setsid();
            Ok(())
        });
    }
    let mut child = command
        .spawn()
        .map_err(Error::io(format!("start {} daemon", program.display())))?;
    let deadline = Instant::now() + START_LIMIT;
    let mut exit = None;
    loop {
        if let Ok(stream) = UnixStream::connect(socket).await {
            return Ok(stream);
        }
        let failed = |reason: String| Error::Daemon {
            reason,
            log: log_path.display().to_string(),
        };
        if exit.is_none()
            && let Ok(Some(status)) = child.try_wait()
        {
            exit = Some((status, Instant::now()));
        }
        // Another daemon, started at the same moment, may be about to listen: give it a second.
        if let Some((status, at)) = exit
            && at.elapsed() > Duration::from_secs(1)
        {
            return Err(failed(format!("it ended with {status}")));
        }
        if Instant::now() >= deadline {
            return Err(failed(format!(
                "it does not listen on {} after {} s",
                socket.display(),
                START_LIMIT.as_secs()
            )));
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
