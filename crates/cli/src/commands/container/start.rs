//! `start`.

use std::sync::Arc;

use clap::Args;
use gamut_spec::detach_keys::{DEFAULT_KEYS, KeySequence};
use serde_json::Value;

use super::run::{attach_streams, engine_failure, start, until_exit};
use super::{path, running};
use crate::client::{Client, Query};
use crate::commands::{Verb, for_each};
use crate::error::Error;
use crate::terminal::session::Session;
use crate::terminal::signals;

/// Flags of `gamut start`.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Attach STDOUT/STDERR and forward signals
    #[arg(short, long)]
    pub attach: bool,
    /// Override the key sequence for detaching a container
    #[arg(long, value_name = "KEYS", default_value = DEFAULT_KEYS)]
    pub detach_keys: KeySequence,
    /// Attach container's STDIN
    #[arg(short, long)]
    pub interactive: bool,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

impl Verb for StartArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        if self.attach || self.interactive {
            let [container] = self.containers.as_slice() else {
                return Err(Error::Usage(
                    "you cannot start and attach multiple containers at once".into(),
                ));
            };
            return self.attached(&client, container).await;
        }
        for_each(&self.containers, |name| {
            let client = client.clone();
            async move {
                start(&client, &name).await?;
                Ok(Some(name))
            }
        })
        .await
    }
}

impl StartArguments {
    async fn attached(&self, client: &Arc<Client>, container: &str) -> Result<u8, Error> {
        let details = client.get(&path(container, "json"), &Query::new()).await?;
        let setting = |pointer: &str| {
            let value = details.pointer(pointer);
            value.and_then(Value::as_bool).unwrap_or_default()
        };
        let id = details
            .get("Id")
            .and_then(Value::as_str)
            .unwrap_or(container);
        let session = Session {
            has_stdin: self.interactive && setting("/Config/OpenStdin"),
            is_tty: setting("/Config/Tty"),
            shows_stdout: true,
            shows_stderr: true,
            detach_keys: self.detach_keys.clone(),
        };
        running::check_terminal(session.has_stdin, session.is_tty)?;
        let mut caught = match session.is_interactive_terminal() {
            true => None,
            false => Some(signals::forwarded()?),
        };
        let condition = if setting("/HostConfig/AutoRemove") {
            "removed"
        } else {
            "next-exit"
        };
        let (connection, wait) = tokio::join!(
            attach_streams(client, id, &session),
            running::wait_for(client, id, condition)
        );
        let (connection, wait) = (connection?, wait?);
        start(client, id).await.map_err(engine_failure)?;
        if session.is_tty {
            running::follow_terminal_size(client, path(id, ""))?;
        }
        tokio::select! {
            code = until_exit(session, connection, wait) => code,
            () = running::forward_signals(client, id, &mut caught) => Ok(0),
        }
    }
}
