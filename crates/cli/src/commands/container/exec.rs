//! `exec`.

use std::sync::Arc;

use clap::Args;
use gamut_spec::detach_keys::{DEFAULT_KEYS, KeySequence};
use serde_json::{Value, json};

use super::config::set;
use super::{path, running};
use crate::client::{Client, Query};
use crate::commands::{Verb, number, text};
use crate::error::Error;
use crate::output::print;
use crate::parse::files;
use crate::terminal::raw;
use crate::terminal::session::{End, Session};

/// Flags of `gamut exec`.
#[derive(Debug, Args)]
pub struct ExecArguments {
    /// Detached mode: run command in the background
    #[arg(short, long)]
    pub detach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_KEYS)]
    pub detach_keys: KeySequence,
    /// Set environment variables
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short, long)]
    pub interactive: bool,
    /// Give extended privileges to the command
    #[arg(long)]
    pub privileged: bool,
    /// Allocate a pseudo-TTY
    #[arg(short, long)]
    pub tty: bool,
    /// Username or UID (format: "<name|uid>[:<group|gid>]")
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "PATH")]
    pub workdir: Option<String>,
    /// The container, and the command to run in it
    #[arg(value_names = ["CONTAINER", "COMMAND"], required = true, num_args = 2..,
          trailing_var_arg = true)]
    pub container_and_command: Vec<String>,
}

impl Verb for ExecArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER COMMAND [ARG...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let Some((container, command)) = self.container_and_command.split_first() else {
            return Err(Error::Usage("a container is required".into()));
        };
        let session = Session {
            has_stdin: self.interactive,
            is_tty: self.tty,
            shows_stdout: true,
            shows_stderr: true,
            detach_keys: self.detach_keys.clone(),
        };
        if !self.detach {
            running::check_terminal(session.has_stdin, session.is_tty)?;
        }
        let mut body = json!({
            "AttachStdin": self.interactive && !self.detach,
            "AttachStdout": !self.detach,
            "AttachStderr": !self.detach,
            "DetachKeys": self.detach_keys.to_string(),
            "Tty": self.tty,
            "Env": files::environment(&self.env_file, &self.env)?,
            "Privileged": self.privileged,
            "Cmd": command,
        });
        set(&mut body, "User", self.user.as_deref());
        set(&mut body, "WorkingDir", self.workdir.as_deref());
        if self.tty
            && let Some((rows, columns)) = raw::size()
        {
            body["ConsoleSize"] = json!([rows, columns]);
        }
        let answer = client
            .post(&path(container, "exec"), &Query::new(), &body)
            .await?;
        let exec = format!("/exec/{}", text(&answer, "Id"));
        let start = format!("{exec}/start");
        let mut body = json!({"Detach": self.detach, "Tty": self.tty});
        if self.detach {
            client.post(&start, &Query::new(), &body).await?;
            return Ok(0);
        }
        if self.tty
            && let Some((rows, columns)) = raw::size()
        {
            body["ConsoleSize"] = json!([rows, columns]);
        }
        let connection = client.hijack(&start, &Query::new(), &body).await?;
        if self.tty {
            running::follow_terminal_size(&client, exec.clone())?;
        }
        match session.run(connection).await? {
            End::Closed => {}
            End::Detached => {
                print::note("read escape sequence");
                return Ok(0);
            }
            End::Signal(number) => return Ok(running::signal_code(number)),
        }
        let details: Value = client.get(&format!("{exec}/json"), &Query::new()).await?;
        Ok(u8::try_from(number(&details, "ExitCode") & 0xff).unwrap_or(u8::MAX))
    }
}
