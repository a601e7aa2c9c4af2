//! Edits of a configuration by Dockerfile instructions (`--change`), without I/O.
//!
//! Source: `docker import --change`, Dockerfile reference.

use serde_json::{Value, json};

use crate::config::ExecutionConfig;
use crate::error::{Error, Result};

/// Applies one instruction: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL,
/// USER, VOLUME or WORKDIR.
pub(crate) fn apply(config: &mut ExecutionConfig, change: &str) -> Result<()> {
    let change = change.trim();
    let (instruction, rest) = change
        .split_once(char::is_whitespace)
        .map_or((change, ""), |(first, rest)| (first, rest.trim()));
    let bad = |reason: &str| Error::malformed(format!("change {change:?}"), reason.to_owned());
    if rest.is_empty() {
        return Err(bad("the instruction has no argument"));
    }
    match instruction.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(config, rest).ok_or_else(|| bad(NOT_A_LIST))?),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(config, rest).ok_or_else(|| bad(NOT_A_LIST))?);
        }
        "ENV" => {
            for (name, value) in pairs(rest).ok_or_else(|| bad(NOT_PAIRS))? {
                let prefix = format!("{name}=");
                let entry = format!("{prefix}{value}");
                match config
                    .env
                    .iter_mut()
                    .find(|entry| entry.starts_with(&prefix))
                {
                    Some(old) => *old = entry,
                    None => config.env.push(entry),
                }
            }
        }
        "LABEL" => {
            let labels = pairs(rest).ok_or_else(|| bad(NOT_PAIRS))?;
            config.labels.extend(labels);
        }
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                let good = number.split('-').all(|part| part.parse::<u16>().is_ok())
                    && matches!(protocol, "tcp" | "udp" | "sctp");
                if !good {
                    return Err(bad("write a port as 80, 80/tcp or 8000-8010/udp"));
                }
                config
                    .exposed_ports
                    .insert(format!("{number}/{protocol}"), json!({}));
            }
        }
        "HEALTHCHECK" => {
            let check = crate::healthcheck::parse(rest).map_err(|reason| bad(&reason))?;
            config.healthcheck = Some(check);
        }
        "VOLUME" => {
            let paths =
                list(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            config
                .volumes
                .extend(paths.into_iter().map(|path| (path, json!({}))));
        }
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "STOPSIGNAL" => config.stop_signal = rest.to_owned(),
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => {
            config.working_dir = if rest.starts_with('/') {
                rest.to_owned()
            } else {
                format!("{}/{rest}", config.working_dir.trim_end_matches('/'))
            };
            if !config.working_dir.starts_with('/') {
                config.working_dir.insert(0, '/');
            }
        }
        other => {
            return Err(bad(&format!(
                "{other} is not a change; use CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR"
            )));
        }
    }
    Ok(())
}

const NOT_A_LIST: &str = "not a JSON list of strings";
const NOT_PAIRS: &str = "write name=value, with quotes around values that have spaces";

/// A command in exec form (`["a","b"]`) or shell form.
fn command(config: &ExecutionConfig, text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') {
        return list(text);
    }
    let mut words = config
        .shell
        .clone()
        .unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
    words.push(text.to_owned());
    Some(words)
}

fn list(text: &str) -> Option<Vec<String>> {
    let value: Value = serde_json::from_str(text).ok()?;
    value
        .as_array()?
        .iter()
        .map(|word| word.as_str().map(str::to_owned))
        .collect()
}

/// `a=b c="d e"`, or the old form `a b c` of one pair.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(name.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| {
            let (name, value) = word.split_once('=')?;
            (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Words of a line, with `"…"`, `'…'` and backslashes.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().push(letters.next()?),
            (letter, Some(open)) if letter == open => quote = None,
            (letter, Some(_)) => word.get_or_insert_default().push(letter),
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, None) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_edit_the_configuration() {
        let mut config = ExecutionConfig::default();
        for change in [
            "CMD [\"sh\", \"-l\"]",
            "entrypoint /bin/tini --",
            "ENV A=1 B=\"two words\"",
            "ENV A=2",
            "ENV OLD form of it",
            "LABEL x=y",
            "EXPOSE 80 53/udp",
            "VOLUME [\"/data\"]",
            "USER 1000:1000",
            "WORKDIR srv",
            "WORKDIR app",
            "STOPSIGNAL SIGINT",
            "HEALTHCHECK --interval=5s CMD true",
        ] {
            apply(&mut config, change).unwrap();
        }
        assert_eq!(config.cmd.unwrap(), ["sh", "-l"]);
        assert_eq!(
            config.entrypoint.unwrap(),
            ["/bin/sh", "-c", "/bin/tini --"]
        );
        assert_eq!(config.env, ["A=2", "B=two words", "OLD=form of it"]);
        assert_eq!(config.labels["x"], "y");
        assert!(
            config.exposed_ports.contains_key("80/tcp")
                && config.exposed_ports.contains_key("53/udp")
        );
        assert_eq!(config.working_dir, "/srv/app");
        assert_eq!(
            config.healthcheck.unwrap(),
            json!({"Interval": 5_000_000_000_u64, "Test": ["CMD-SHELL", "true"]})
        );
        assert_eq!(config.user, "1000:1000");
    }

    #[test]
    fn wrong_instructions_are_refused() {
        for change in [
            "",
            "CMD",
            "CMD [1]",
            "RUN x",
            "ENV =x",
            "ENV A=\"x",
            "EXPOSE x",
            "EXPOSE 80/icmp",
        ] {
            assert!(
                apply(&mut ExecutionConfig::default(), change).is_err(),
                "{change}"
            );
        }
    }
}
