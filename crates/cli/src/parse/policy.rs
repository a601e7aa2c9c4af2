//! `--restart`, `--attach`, `--pull`.

use serde_json::{Value, json};

use super::invalid;
use crate::error::Error;

/// `--restart no|always|unless-stopped|on-failure[:MAX]`.
///
/// # Errors
/// [`Error::Usage`] for anything else.
pub fn restart(text: &str) -> Result<Value, Error> {
    let bad = |reason: &str| invalid("--restart", text, reason);
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, Some(count)),
        None => (text, None),
    };
    let maximum: u32 = match count {
        None => 0,
        Some(count) => count
            .parse()
            .map_err(|_| bad("maximum retry count must be a whole number"))?,
    };
    match name {
        "" | "no" | "always" | "unless-stopped" | "on-failure" => {}
        _ => return Err(bad("use no, always, unless-stopped or on-failure[:MAX]")),
    }
    if count.is_some() && name != "on-failure" {
        return Err(bad("maximum retry count can only be used with on-failure"));
    }
    let name = if name.is_empty() { "no" } else { name };
    Ok(json!({"Name": name, "MaximumRetryCount": maximum}))
}

/// Which streams are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attach {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// `--attach stdin|stdout|stderr`, any number of them.
///
/// # Errors
/// [`Error::Usage`] for other streams.
pub fn attach(streams: &[String]) -> Result<Attach, Error> {
    let mut attach = Attach::default();
    for stream in streams {
        match stream.to_lowercase().as_str() {
            "stdin" => attach.stdin = true,
            "stdout" => attach.stdout = true,
            "stderr" => attach.stderr = true,
            _ => {
                let reason = "valid streams are STDIN, STDOUT and STDERR";
                return Err(invalid("--attach", stream, reason));
            }
        }
    }
    Ok(attach)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies() {
        assert_eq!(
            restart("on-failure:3").unwrap(),
            json!({"Name": "on-failure", "MaximumRetryCount": 3})
        );
        assert_eq!(restart("always").unwrap()["Name"], "always");
        assert_eq!(restart("").unwrap()["Name"], "no");
        for bad in ["never", "always:1", "on-failure:x", "on-failure:-1"] {
            assert!(restart(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn streams() {
        let both = attach(&["stdin".into(), "STDERR".into()]).unwrap();
        assert!(both.stdin && both.stderr && !both.stdout);
        assert!(attach(&["x".into()]).is_err());
    }
}
