//! Credential helpers: programs `docker-credential-NAME` that keep secrets elsewhere.
//!
//! Source: the protocol of docker-credential-helpers (get, store, erase over standard input and
//! output).

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::Login;
use crate::error::Error;

/// What helpers say when they have nothing.
const NOTHING: &str = "credentials not found in native keychain";
/// The name that marks a secret as an identity token.
const TOKEN: &str = "<token>";

/// What a helper has for a server.
///
/// # Errors
/// If it cannot be run, or fails.
pub fn get(helper: &str, server: &str) -> Result<Option<Login>, Error> {
    let answer = match run(helper, "get", server)? {
        Ok(answer) => answer,
        Err(said) if said.contains(NOTHING) => return Ok(None),
        Err(said) => return Err(failed(helper, "get", &said)),
    };
    parse(&answer).map_err(|reason| failed(helper, "get", &reason))
}

/// Lets a helper keep credentials.
///
/// # Errors
/// If it cannot be run, or fails.
pub fn store(helper: &str, server: &str, login: &Login) -> Result<(), Error> {
    let (username, secret) = if login.identity_token.is_empty() {
        (login.username.as_str(), login.password.as_str())
    } else {
        (TOKEN, login.identity_token.as_str())
    };
    let text = json!({"ServerURL": server, "Username": username, "Secret": secret}).to_string();
    match run(helper, "store", &text)? {
        Ok(_) => Ok(()),
        Err(said) => Err(failed(helper, "store", &said)),
    }
}

/// Lets a helper forget credentials; having none is no failure.
///
/// # Errors
/// If it cannot be run, or fails.
pub fn erase(helper: &str, server: &str) -> Result<(), Error> {
    match run(helper, "erase", server)? {
        Err(said) if !said.contains(NOTHING) => Err(failed(helper, "erase", &said)),
        _ => Ok(()),
    }
}

fn failed(helper: &str, action: &str, said: &str) -> Error {
    let said: String = said.trim().chars().filter(|c| !c.is_control()).collect();
    Error::Message(format!("docker-credential-{helper} {action}: {said}"))
}

/// Takes a helper's answer apart.
fn parse(answer: &str) -> Result<Option<Login>, String> {
    let value: Value = serde_json::from_str(answer)
        .map_err(|error| format!("its answer is not understood: {error}"))?;
    let field = |name: &str| {
        let text = value.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let (username, secret) = (field("Username"), field("Secret"));
    if username.is_empty() && secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if username == TOKEN {
        Login {
            identity_token: secret,
            ..Login::default()
        }
    } else {
        Login {
            username,
            password: secret,
            ..Login::default()
        }
    }))
}

/// Runs a helper. The inner error is what it said when it failed.
fn run(helper: &str, action: &str, input: &str) -> Result<Result<String, String>, Error> {
    if helper.contains(['/', '\0']) {
        return Err(failed(helper, action, "not the name of a program"));
    }
    let program = format!("docker-credential-{helper}");
    let cannot = |source: io::Error| {
        Error::Message(format!(
            "cannot run {program}, which config.json names: {source}"
        ))
    };
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            // One that does not read has failed, and says why.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(cannot(error)),
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(cannot)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(if output.status.success() {
        Ok(said)
    } else {
        Err(said)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let login = parse(r#"{"ServerURL":"x","Username":"me","Secret":"s"}"#).unwrap();
        assert_eq!(login.unwrap().password, "s");
        let token = parse(r#"{"Username":"<token>","Secret":"t"}"#)
            .unwrap()
            .unwrap();
        assert_eq!(
            (token.identity_token.as_str(), token.username.as_str()),
            ("t", "")
        );
        assert_eq!(parse("{}").unwrap(), None);
        assert!(parse("oops").is_err());
        assert!(get("../evil", "x").is_err());
    }
}
