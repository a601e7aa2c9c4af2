//! The instruction HEALTHCHECK, without I/O.
//!
//! Source: Dockerfile reference, HEALTHCHECK; Docker's "Image Specification v1.3".

use gamut_spec::units;
use serde_json::{Map, Value, json};

/// Translates what follows `HEALTHCHECK`: `NONE`, or options and `CMD` with a command in exec form
/// or shell form.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    let mut check = Map::new();
    let mut rest = text.trim();
    loop {
        let (word, after) = rest
            .split_once(char::is_whitespace)
            .map_or((rest, ""), |(word, after)| (word, after.trim()));
        let Some(option) = word.strip_prefix("--") else {
            break;
        };
        let (name, value) = option
            .split_once('=')
            .ok_or_else(|| format!("write --{option}=VALUE"))?;
        let (key, value) = match name {
            "interval" => ("Interval", nanoseconds(value)?),
            "timeout" => ("Timeout", nanoseconds(value)?),
            "start-period" => ("StartPeriod", nanoseconds(value)?),
            "start-interval" => ("StartInterval", nanoseconds(value)?),
            "retries" => {
                let count = value.parse::<u32>().ok().filter(|count| *count > 0);
                (
                    "Retries",
                    count.ok_or("--retries needs a number from 1")?.into(),
                )
            }
            _ => return Err(format!("there is no option --{name}")),
        };
        check.insert(key.to_owned(), value);
        rest = after;
    }
    let (kind, command) = rest
        .split_once(char::is_whitespace)
        .map_or((rest, ""), |(kind, command)| (kind, command.trim()));
    let test = match (kind.to_ascii_uppercase().as_str(), command) {
        ("NONE", "") if check.is_empty() => json!(["NONE"]),
        ("NONE", _) => return Err("NONE takes no options and no arguments".to_owned()),
        ("CMD", "") => return Err("CMD needs a command".to_owned()),
        ("CMD", command) if command.starts_with('[') => {
            let words: Vec<String> = serde_json::from_str(command)
                .map_err(|_| "the command is not a JSON list of strings".to_owned())?;
            if words.is_empty() {
                return Err("CMD needs a command".to_owned());
            }
            json!([&["CMD".to_owned()], words.as_slice()].concat())
        }
        ("CMD", command) => json!(["CMD-SHELL", command]),
        _ => return Err("write NONE, or options and CMD".to_owned()),
    };
    check.insert("Test".to_owned(), test);
    Ok(check.into())
}

fn nanoseconds(text: &str) -> Result<Value, String> {
    const MINIMUM_NS: u64 = 1_000_000;
    units::parse_duration_ns(text)
        .filter(|ns| (*ns == 0 || *ns >= MINIMUM_NS) && i64::try_from(*ns).is_ok())
        .map(Value::from)
        .ok_or_else(|| format!("{text:?} is no duration of at least 1ms, as 30s or 1m30s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form() {
        assert_eq!(parse("NONE").unwrap(), json!({"Test": ["NONE"]}));
        assert_eq!(
            parse("--interval=5m --retries=2  CMD curl -f http://localhost/ || exit 1").unwrap(),
            json!({"Interval": 300_000_000_000_u64, "Retries": 2,
                   "Test": ["CMD-SHELL", "curl -f http://localhost/ || exit 1"]})
        );
        assert_eq!(
            parse("--start-period=1s cmd [\"a\", \"b c\"]").unwrap(),
            json!({"StartPeriod": 1_000_000_000, "Test": ["CMD", "a", "b c"]})
        );
        for bad in [
            "",
            "CMD",
            "CMD []",
            "CMD [1]",
            "NONE x",
            "--interval=1s NONE",
            "--interval CMD x",
            "--interval=5 CMD x",
            "--timeout=1us CMD x",
            "--retries=0 CMD x",
            "--what=1 CMD x",
            "x",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(--[a-z-]{1,9}=[0-9a-z]{0,4} ?|CMD |NONE |\\[|\\PC){0,12}") {
            let _ = parse(&text);
        }
    }
}
