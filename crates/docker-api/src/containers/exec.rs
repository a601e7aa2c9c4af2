//! Exec sessions.

use super::lifecycle::terminal_size;
use crate::error::ApiError;
use crate::hijack::{self, End, Output, Stdio};
use crate::reply::{self, Response};
use crate::request::Request;
use gamut_engine::Engine;
use gamut_engine::container::exec::ExecRequest;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

/// How long after the end of its output a process may take to end before the client is let go.
const EXIT_LIMIT: Duration = Duration::from_secs(3600 * 24 * 365);

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct CreateBody {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    // Go's decoder does not tell upper from lower case, which docker-py counts on.
    #[serde(
        alias = "detachKeys",
        deserialize_with = "super::create::null_as_default"
    )]
    detach_keys: String,
    tty: bool,
    #[serde(deserialize_with = "super::create::null_as_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "super::create::words")]
    cmd: Option<Vec<String>>,
    privileged: bool,
    #[serde(deserialize_with = "super::create::null_as_default")]
    user: String,
    #[serde(deserialize_with = "super::create::null_as_default")]
    working_dir: String,
    console_size: Option<(u16, u16)>,
}

/// `POST /containers/{id}/exec`
pub async fn create(mut request: Request, name: &str) -> Result<Response, ApiError> {
    let body: CreateBody = request.json().await?.unwrap_or_default();
    if body.privileged && !request.engine.is_trusted(&request.caller) {
        return Err(Engine::denied(&request.caller, "exec --privileged").into());
    }
    hijack::detach_keys(body.tty, &body.detach_keys)?;
    let exec = ExecRequest {
        command: body.cmd.unwrap_or_default(),
        environment: body.env,
        working_directory: body.working_dir,
        user: body.user,
        terminal: body.tty,
        privileged: body.privileged,
        attach: (body.attach_stdin, body.attach_stdout, body.attach_stderr),
        console_size: body.console_size,
        detach_keys: body.detach_keys,
    };
    let id = request.engine.create_exec(&request.caller, name, exec)?;
    Ok(reply::created(&json!({"Id": id})))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct StartBody {
    detach: bool,
    tty: bool,
    console_size: Option<(u16, u16)>,
}

/// `POST /exec/{id}/start`
pub async fn start(mut request: Request, id: &str) -> Result<Response, ApiError> {
    let body: StartBody = request.json().await?.unwrap_or_default();
    let exec_id = id.to_owned();
    let started = request
        .blocking(move |engine, caller| {
            engine.start_exec(caller, &exec_id, body.detach, body.console_size)
        })
        .await;
    let stream = match started {
        Ok(Some(stream)) => stream,
        Ok(None) => return Ok(reply::empty(StatusCode::OK)),
        Err(error) => match failed_command(&request, id, body.detach, &error) {
            Some(stream) => stream,
            None => return Err(error),
        },
    };
    let exec = request.engine.exec(id)?.request;
    // As in dockerd, who starts it says whether frames are expected, whoever made it.
    let form = match (exec.terminal, body.tty) {
        (true, false) => Output::Framed,
        (terminal, _) => Output::of(terminal),
    };
    let stdio = Stdio {
        stream,
        form,
        detach_keys: hijack::detach_keys(exec.terminal, &exec.detach_keys)?,
    };
    let (engine, exec_id) = (Arc::clone(&request.engine), id.to_owned());
    let finish = move |end| async move {
        match end {
            // The exit code is on record before the client sees the end of the output and asks
            // for it.
            End::Output => {
                engine.exec_finished(&exec_id, EXIT_LIMIT).await;
            }
            End::Detached => engine.exec_detached(&exec_id),
        }
    };
    Ok(hijack::respond(request, stdio, finish))
}

/// The output of a command that is not there or cannot be executed: what is wrong with it. As in
/// dockerd, such an exec is one that ends at once, with 126 or 127, so that clients exit with that.
/// `None` for other failures and for detached execs, whose client reads no output.
fn failed_command(
    request: &Request,
    id: &str,
    detach: bool,
    error: &ApiError,
) -> Option<std::os::unix::net::UnixStream> {
    const STDERR: u8 = 2;
    let exec = request.engine.exec(id).ok()?;
    let is_about_command = error.message.starts_with("exec: ");
    if detach || !is_about_command || !matches!(exec.exit_code, Some(126 | 127)) {
        return None;
    }
    let text = format!("{}\r\n", error.message);
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().ok()?;
    if !exec.request.terminal {
        let length = u32::try_from(text.len()).ok()?.to_be_bytes();
        let [a, b, c, d] = length;
        ours.write_all(&[STDERR, 0, 0, 0, a, b, c, d]).ok()?;
    }
    // It fits into an empty socket's buffer.
    ours.write_all(text.as_bytes()).ok()?;
    Some(theirs)
}

/// `POST /exec/{id}/resize`
pub async fn resize(request: Request, id: &str) -> Result<Response, ApiError> {
    let (rows, columns) = terminal_size(&request)?;
    let id = id.to_owned();
    request
        .blocking(move |engine, caller| engine.resize_exec(caller, &id, rows, columns))
        .await?;
    Ok(reply::empty(StatusCode::OK))
}

/// `GET /exec/{id}/json`
pub fn inspect(request: &Request, id: &str) -> Result<Response, ApiError> {
    let exec = request.engine.exec(id)?;
    let (stdin, stdout, stderr) = exec.request.attach;
    let (entrypoint, arguments) = exec
        .request
        .command
        .split_first()
        .map_or(("", &[][..]), |(e, a)| (e.as_str(), a));
    Ok(reply::json(&json!({
        "ID": exec.id,
        "Running": exec.running,
        "ExitCode": exec.exit_code,
        "ProcessConfig": {
            "tty": exec.request.terminal,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": exec.request.privileged,
            "user": exec.request.user,
        },
        "OpenStdin": stdin,
        "OpenStderr": stderr,
        "OpenStdout": stdout,
        "CanRemove": exec.started && !exec.running,
        "ContainerID": exec.container_id,
        "DetachKeys": exec.request.detach_keys,
        "Pid": exec.pid,
    })))
}
