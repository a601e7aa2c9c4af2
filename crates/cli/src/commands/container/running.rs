//! A container in the foreground: its streams, signals, terminal size and exit code.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;

use gamut_spec::signal;
use hyper::Method;
use serde_json::Value;
use tokio::sync::mpsc;

use super::path;
use crate::client::http::Call;
use crate::client::{Client, Query, Streaming};
use crate::error::Error;
use crate::terminal::{raw, signals};

/// Refuses a terminal for a container where the caller has none.
///
/// # Errors
/// In docker's words.
pub fn check_terminal(attaches_stdin: bool, is_tty: bool) -> Result<(), Error> {
    if attaches_stdin && is_tty && !io::stdin().is_terminal() {
        return Err(Error::Message("the input device is not a TTY".into()));
    }
    Ok(())
}

/// Registers for a container's next exit (`next-exit`), its removal (`removed`), or the state of
/// not running (`not-running`). When this returns, the exit cannot be missed any more.
///
/// # Errors
/// Connection failures, no such container.
pub async fn wait_for(
    client: &Client,
    container: &str,
    condition: &str,
) -> Result<Streaming, Error> {
    let query = Query::new().with("condition", condition);
    let call = Call::new(Method::POST, &path(container, "wait"), &query);
    client.stream(call).await
}

/// The exit code that a registered wait reports.
///
/// # Errors
/// When the connection breaks first, or the engine could not wait.
pub async fn exit_code(mut wait: Streaming) -> Result<u8, Error> {
    let answer = wait.next_json().await?.ok_or_else(|| Error::Answer {
        operation: "wait".into(),
        reason: "it ended without an exit code".into(),
    })?;
    if let Some(message) = answer.pointer("/Error/Message").and_then(Value::as_str)
        && !message.is_empty()
    {
        return Err(Error::Message(message.to_owned()));
    }
    let code = answer
        .get("StatusCode")
        .and_then(Value::as_i64)
        .unwrap_or(0);
    // An exit status is a byte (wait(2)).
    Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX))
}

/// Passes signals on to a container, for ever.
pub async fn forward_signals(
    client: &Client,
    container: &str,
    caught: &mut Option<mpsc::Receiver<i32>>,
) {
    if let Some(caught) = caught {
        while let Some(number) = caught.recv().await {
            let query = Query::new().with("signal", &number.to_string());
            // It may have ended just now, or not have started yet.
            let _ = client
                .post(&path(container, "kill"), &query, &Value::Null)
                .await;
        }
    }
    std::future::pending::<()>().await;
}

/// Gives a resource (`/containers/ID`, `/exec/ID`) the terminal's size, now and whenever it
/// changes.
pub fn follow_terminal_size(client: &Arc<Client>, resource: String) -> Result<(), Error> {
    let mut resized = signals::resized()?;
    let client = client.clone();
    tokio::spawn(async move {
        loop {
            if let Some((rows, columns)) = raw::size() {
                let query = Query::new()
                    .with("h", &rows.to_string())
                    .with("w", &columns.to_string());
                // A container that has just ended has no size.
                let _ = client
                    .post(&format!("{resource}/resize"), &query, &Value::Null)
                    .await;
            }
            if resized.recv().await.is_none() {
                return;
            }
        }
    });
    Ok(())
}

/// The exit code that shells use for "ended by a signal".
#[must_use]
pub fn signal_code(number: i32) -> u8 {
    u8::try_from(128 + number).unwrap_or(u8::MAX)
}

/// Checks a signal's name before it is sent.
///
/// # Errors
/// [`Error::Usage`] if there is no such signal.
pub fn check_signal(name: Option<&str>) -> Result<(), Error> {
    match name {
        Some(name) if signal::parse(name).is_none() => {
            Err(Error::Usage(format!("invalid signal: {name}")))
        }
        _ => Ok(()),
    }
}
