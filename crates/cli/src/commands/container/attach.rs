//! `attach`.

use std::sync::Arc;

use clap::Args;
use gamut_spec::detach_keys::{DEFAULT_KEYS, KeySequence};
use serde_json::Value;

use super::run::{attach_streams, until_exit};
use super::{path, running};
use crate::client::{Client, Query};
use crate::commands::Verb;
use crate::error::Error;
use crate::terminal::session::Session;
use crate::terminal::signals;

/// Flags of `gamut attach`.
#[derive(Debug, Args)]
pub struct AttachArguments {
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_KEYS)]
    pub detach_keys: KeySequence,
    /// Do not attach STDIN
    #[arg(long)]
    pub no_stdin: bool,
    /// Proxy all received signals to the process
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub sig_proxy: bool,
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

impl Verb for AttachArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let details = client
            .get(&path(&self.container, "json"), &Query::new())
            .await?;
        let setting = |pointer: &str| {
            let value = details.pointer(pointer);
            value.and_then(Value::as_bool).unwrap_or_default()
        };
        let refuse = |state: &str| {
            Err(Error::Message(format!(
                "cannot attach to a {state} container, {} it first",
                if state == "paused" {
                    "unpause"
                } else {
                    "start"
                }
            )))
        };
        if !setting("/State/Running") {
            return refuse("stopped");
        }
        if setting("/State/Paused") {
            return refuse("paused");
        }
        let id = details
            .get("Id")
            .and_then(Value::as_str)
            .unwrap_or(&self.container)
            .to_owned();
        let session = Session {
            has_stdin: !self.no_stdin && setting("/Config/OpenStdin"),
            is_tty: setting("/Config/Tty"),
            shows_stdout: true,
            shows_stderr: true,
            detach_keys: self.detach_keys.clone(),
        };
        running::check_terminal(session.has_stdin, session.is_tty)?;
        let mut caught = match self.sig_proxy && !session.is_interactive_terminal() {
            true => Some(signals::forwarded()?),
            false => None,
        };
        let (connection, wait) = tokio::join!(
            attach_streams(&client, &id, &session),
            running::wait_for(&client, &id, "not-running")
        );
        let (connection, wait) = (connection?, wait?);
        if session.is_tty {
            running::follow_terminal_size(&client, path(&id, ""))?;
        }
        tokio::select! {
            code = until_exit(session, connection, wait) => code,
            () = running::forward_signals(&client, &id, &mut caught) => Ok(0),
        }
    }
}
