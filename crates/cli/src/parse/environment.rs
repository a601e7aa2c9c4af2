//! `--env`, `--env-file`, `--label`, `--label-file`.

use super::invalid;
use crate::error::Error;

/// One `--env`: `NAME=value`, or `NAME`, which takes the value of the caller's environment (and
/// is dropped if it has none).
///
/// # Errors
/// [`Error::Usage`] for an empty name.
pub fn parse(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Error> {
    let name = text.split('=').next().unwrap_or_default();
    if name.is_empty() {
        return Err(invalid("--env", text, "the variable has no name"));
    }
    if text.contains('=') {
        return Ok(Some(text.to_owned()));
    }
    Ok(lookup(name).map(|value| format!("{name}={value}")))
}

/// The lines of an `--env-file`: blank lines and lines that start with `#` are skipped; leading
/// blanks are cut; a name may not hold blanks.
///
/// # Errors
/// [`Error::Usage`] with the file's name and the line.
pub fn parse_file(
    text: &str,
    file: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<String>, Error> {
    let mut variables = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("{file}:{}", index + 1);
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (line.trim_end(), None),
        };
        if name.is_empty() {
            return Err(Error::Usage(format!(
                "{}: no variable name on line '{line}'",
                at()
            )));
        }
        if name.contains(char::is_whitespace) {
            return Err(Error::Usage(format!(
                "{}: variable '{name}' contains whitespaces",
                at()
            )));
        }
        match value {
            Some(value) => variables.push(format!("{name}={value}")),
            None => variables.extend(lookup(name).map(|value| format!("{name}={value}"))),
        }
    }
    Ok(variables)
}

/// `NAME=value` or `NAME` (an empty value).
///
/// # Errors
/// [`Error::Usage`] for an empty name.
pub fn key_value(flag: &str, text: &str) -> Result<(String, String), Error> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(invalid(flag, text, "the name is empty"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        (name == "HOME").then(|| "/h".to_owned())
    }

    #[test]
    fn single() {
        assert_eq!(parse("A=b=c", &lookup).unwrap().unwrap(), "A=b=c");
        assert_eq!(parse("A=", &lookup).unwrap().unwrap(), "A=");
        assert_eq!(parse("HOME", &lookup).unwrap().unwrap(), "HOME=/h");
        assert_eq!(parse("UNSET", &lookup).unwrap(), None);
        assert!(parse("=x", &lookup).is_err());
        assert!(parse("", &lookup).is_err());
    }

    #[test]
    fn file() {
        let text = "# c\n\n A=1 \nB=\nHOME\nUNSET\nC=x # y\n";
        assert_eq!(
            parse_file(text, "f", &lookup).unwrap(),
            ["A=1 ", "B=", "HOME=/h", "C=x # y"]
        );
        for bad in ["A B=1", "=1"] {
            assert!(parse_file(bad, "f", &lookup).is_err());
        }
    }
}
