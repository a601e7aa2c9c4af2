//! `run` and `create`.

use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use gamut_spec::detach_keys::{DEFAULT_KEYS, KeySequence};
use gamut_spec::reference::Reference;
use serde_json::Value;

use super::config::{self, Description};
use super::flags::ContainerFlags;
use super::{path, running, verify};
use crate::client::{Client, Hijacked, Query, Streaming};
use crate::commands::{Verb, image, list, text};
use crate::error::{EXIT_ENGINE, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, Error};
use crate::output::print;
use crate::output::progress::Progress;
use crate::terminal::session::{End, Session};
use crate::terminal::signals;

/// After a failed start of a `--rm` container, how long its removal may take.
const REMOVAL_LIMIT: Duration = Duration::from_secs(10);

/// Flags of `gamut create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// What to create.
    #[command(flatten)]
    pub container: ContainerFlags,
}

impl Verb for CreateArguments {
    const USAGE: &'static str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        // A created container is attached when it is started.
        let description = config::describe(&self.container, false).map_err(engine_failure)?;
        let id = create(&client, &self.container, &description, false).await?;
        print::line(&id)?;
        Ok(0)
    }
}

/// Flags of `gamut run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Run container in background and print container ID
    #[arg(short, long)]
    pub detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_KEYS)]
    pub detach_keys: KeySequence,
    /// Proxy received signals to the process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub sig_proxy: bool,
    /// Run it so many times in changed surroundings (host name, time zone, language, processors), and
    /// compare all files that are left
    #[arg(long, value_name = "N")]
    pub verify: Option<u32>,
    /// What to run.
    #[command(flatten)]
    pub container: ContainerFlags,
}

impl Verb for RunArguments {
    const USAGE: &'static str = "[OPTIONS] IMAGE [COMMAND] [ARG...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        if let Some(times) = self.verify {
            return verify::run(self, times, &client).await;
        }
        let description = config::describe(&self.container, self.detach).map_err(engine_failure)?;
        if !self.detach {
            running::check_terminal(description.attach.stdin, self.container.tty)?;
        }
        let id = create(&client, &self.container, &description, true)
            .await
            .map_err(engine_failure)?;
        if self.detach {
            start(&client, &id).await.map_err(engine_failure)?;
            print::line(&id)?;
            return Ok(0);
        }
        self.foreground(&client, &id, &description).await
    }
}

impl RunArguments {
    pub(super) async fn foreground(
        &self,
        client: &Arc<Client>,
        id: &str,
        description: &Description,
    ) -> Result<u8, Error> {
        let attach = description.attach;
        let session = Session {
            has_stdin: attach.stdin,
            is_tty: self.container.tty,
            shows_stdout: attach.stdout,
            shows_stderr: attach.stderr,
            detach_keys: self.detach_keys.clone(),
        };
        let proxies_signals = self.sig_proxy && !session.is_interactive_terminal();
        let mut caught = match proxies_signals {
            true => Some(signals::forwarded()?),
            false => None,
        };
        // Both must stand before the start: no byte and no exit may be missed.
        let condition = if self.container.rm {
            "removed"
        } else {
            "next-exit"
        };
        let (connection, wait) = tokio::join!(
            attach_streams(client, id, &session),
            running::wait_for(client, id, condition)
        );
        let (connection, wait) = (
            connection.map_err(engine_failure)?,
            wait.map_err(engine_failure)?,
        );
        if let Err(failure) = start(client, id).await {
            if self.container.rm {
                // Not worth an error of its own: the start's is the one to tell.
                let _ = tokio::time::timeout(REMOVAL_LIMIT, running::exit_code(wait)).await;
            }
            return Err(engine_failure(failure));
        }
        if session.is_tty {
            running::follow_terminal_size(client, path(id, ""))?;
        }
        tokio::select! {
            code = until_exit(session, connection, wait) => code,
            () = running::forward_signals(client, id, &mut caught) => Ok(0),
        }
    }
}

/// Runs a session to its end; returns the exit code of the command.
pub(super) async fn until_exit(
    session: Session,
    connection: Option<Hijacked>,
    wait: Streaming,
) -> Result<u8, Error> {
    if let Some(connection) = connection {
        match session.run(connection).await? {
            End::Closed => {}
            End::Detached => {
                print::note("read escape sequence");
                return Ok(0);
            }
            End::Signal(number) => return Ok(running::signal_code(number)),
        }
    }
    running::exit_code(wait)
        .await
        .map_err(|error| error.with_code(EXIT_ENGINE))
}

/// Attaches to the streams of a session; `None` if it has none.
pub(super) async fn attach_streams(
    client: &Client,
    id: &str,
    session: &Session,
) -> Result<Option<Hijacked>, Error> {
    if !(session.has_stdin || session.shows_stdout || session.shows_stderr) {
        return Ok(None);
    }
    let query = Query::new()
        .with("stream", "1")
        .flag("stdin", session.has_stdin)
        .flag("stdout", session.shows_stdout)
        .flag("stderr", session.shows_stderr)
        .with("detachKeys", &session.detach_keys.to_string());
    let path = path(id, "attach");
    let connection = client.hijack(&path, &query, &Value::Null).await?;
    Ok(Some(connection))
}

pub(super) async fn start(client: &Client, id: &str) -> Result<(), Error> {
    let path = path(id, "start");
    client.post(&path, &Query::new(), &Value::Null).await?;
    Ok(())
}

/// Creates the container; pulls its image if need be. Warnings go to standard error. Output of a
/// pull goes to standard error too: standard output is the workload's, or the id's.
pub(super) async fn create(
    client: &Client,
    flags: &ContainerFlags,
    description: &Description,
    is_run: bool,
) -> Result<String, Error> {
    let mut id_file = match &flags.cidfile {
        Some(path) => Some(IdFile::create(path)?),
        None => None,
    };
    if flags.pull == "always" {
        pull(client, flags, &description.image).await?;
    }
    let query = Query::new()
        .maybe("name", flags.name.as_deref())
        .maybe("platform", flags.platform.as_deref());
    let mut answer = client
        .post("/containers/create", &query, &description.body)
        .await;
    // A 404 about something else (a network, a volume) must not start a pull.
    if let Err(error) = &answer
        && error.status() == Some(404)
        && error.to_string().contains("No such image")
        && flags.pull != "never"
    {
        let name = Reference::parse(&description.image)
            .map_or_else(|_| description.image.clone(), |known| known.familiar());
        print::note(&format!("Unable to find image '{name}' locally"));
        pull(client, flags, &description.image).await?;
        answer = client
            .post("/containers/create", &query, &description.body)
            .await;
    }
    let answer = answer?;
    for warning in list(&answer, "Warnings") {
        if let Some(warning) = warning.as_str() {
            print::note(&format!("WARNING: {warning}"));
        }
    }
    let id = text(&answer, "Id").to_owned();
    if id.is_empty() {
        let operation = if is_run { "run" } else { "create" };
        return Err(Error::Answer {
            operation: operation.into(),
            reason: "no container id".into(),
        });
    }
    if let Some(file) = &mut id_file {
        file.write(&id)?;
    }
    Ok(id)
}

async fn pull(client: &Client, flags: &ContainerFlags, name: &str) -> Result<(), Error> {
    let progress = if flags.quiet {
        Progress::quiet()
    } else {
        Progress::new(true)
    };
    image::pull::pull(client, name, flags.platform.as_deref(), false, progress).await
}

/// `--cidfile`: must not exist; does not stay behind empty.
struct IdFile {
    path: String,
    file: fs::File,
    is_written: bool,
}

impl IdFile {
    fn create(path: &str) -> Result<Self, Error> {
        let file = fs::File::create_new(path).map_err(|source| {
            if source.kind() == std::io::ErrorKind::AlreadyExists {
                return Error::Usage(format!(
                    "container ID file found, make sure the other container isn't running or delete {path}"
                ));
            }
            Error::io(format!("create the container ID file {path}"))(source)
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            is_written: false,
        })
    }

    fn write(&mut self, id: &str) -> Result<(), Error> {
        self.file
            .write_all(id.as_bytes())
            .map_err(Error::io(format!("write {}", self.path)))?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        if !self.is_written {
            // The failure that led here is the one to tell.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The engine's failures as `run` reports them: with the program's name, and an exit code that
/// tells a missing command (127) and one that cannot be executed (126) from the rest (125).
pub(super) fn engine_failure(error: Error) -> Error {
    let code = match &error {
        Error::Api { message, .. } => start_failure_code(message),
        _ => EXIT_ENGINE,
    };
    match error {
        Error::OutputClosed | Error::Coded { .. } => error,
        other => Error::Message(format!("gamut: {other}")).with_code(code),
    }
}

/// Docker's rules (cli/command/container, `toStatusError`).
pub(super) fn start_failure_code(message: &str) -> u8 {
    const NOT_FOUND: [&str; 3] = [
        "executable file not found",
        "no such file or directory",
        "system cannot find the file specified",
    ];
    const NOT_EXECUTABLE: [&str; 3] = ["permission denied", "is a directory", "exec format error"];
    // Only the workload's command counts, not a missing bind source or device.
    let is_about_exec = message.contains("exec")
        || message.contains("start container")
        || message.contains("container process");
    if !is_about_exec {
        return EXIT_ENGINE;
    }
    if NOT_FOUND.iter().any(|part| message.contains(part)) {
        return EXIT_NOT_FOUND;
    }
    if NOT_EXECUTABLE.iter().any(|part| message.contains(part)) {
        return EXIT_NOT_EXECUTABLE;
    }
    EXIT_ENGINE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_failed_starts() {
        for (message, code) in [
            (
                "exec: \"x\": executable file not found in $PATH: unknown",
                127,
            ),
            (
                "unable to start container process: exec: \"/x\": no such file or directory",
                127,
            ),
            (
                "unable to start container process: exec: \"/etc\": permission denied",
                126,
            ),
            ("exec: \"/etc\": is a directory", 126),
            ("invalid mount config: bind source path does not exist", 125),
            (
                "error gathering device information: no such file or directory",
                125,
            ),
        ] {
            assert_eq!(start_failure_code(message), code, "{message}");
        }
    }

    #[test]
    fn id_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("id").to_str().unwrap().to_owned();
        drop(IdFile::create(&path).unwrap());
        assert!(!fs::exists(&path).unwrap());
        IdFile::create(&path).unwrap().write("abc").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "abc");
        assert!(IdFile::create(&path).is_err());
        assert!(fs::exists(&path).unwrap());
    }
}
