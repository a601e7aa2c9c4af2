//! Files that flags name: environment, labels, seccomp profiles.

use std::fs;

use super::environment;
use crate::error::Error;

/// Reads a text file that a flag names.
///
/// # Errors
/// When it cannot be read or is no UTF-8.
pub fn read(flag: &str, path: &str) -> Result<String, Error> {
    fs::read_to_string(path).map_err(Error::io(format!("{flag}: read {path}")))
}

/// All variables of `--env-file` and `--env`, in that order: later ones win in the engine.
///
/// # Errors
/// Unreadable files and bad lines.
pub fn environment(files: &[String], single: &[String]) -> Result<Vec<String>, Error> {
    let lookup = |name: &str| std::env::var(name).ok();
    let mut variables = Vec::new();
    for file in files {
        let text = read("--env-file", file)?;
        variables.extend(environment::parse_file(&text, file, &lookup)?);
    }
    for text in single {
        variables.extend(environment::parse(text, &lookup)?);
    }
    Ok(variables)
}

/// All labels of `--label-file` and `--label`.
///
/// # Errors
/// Unreadable files and bad lines.
pub fn labels(
    files: &[String],
    single: &[String],
) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
    let mut labels = serde_json::Map::new();
    for file in files {
        let text = read("--label-file", file)?;
        for line in environment::parse_file(&text, file, &|_| Some(String::new()))? {
            let (name, value) = environment::key_value("--label-file", &line)?;
            labels.insert(name, value.into());
        }
    }
    for text in single {
        let (name, value) = environment::key_value("--label", text)?;
        labels.insert(name, value.into());
    }
    Ok(labels)
}

/// `--security-opt` values as the engine wants them: a seccomp profile's file is replaced by its
/// content.
///
/// # Errors
/// Unreadable or malformed profiles.
pub fn security_options(options: &[String]) -> Result<Vec<String>, Error> {
    let mut resolved = Vec::with_capacity(options.len());
    for option in options {
        let profile = option
            .strip_prefix("seccomp=")
            .or_else(|| option.strip_prefix("seccomp:"));
        match profile {
            Some(path) if !matches!(path, "unconfined" | "builtin") => {
                let text = read("--security-opt seccomp", path)?;
                let profile: serde_json::Value = serde_json::from_str(&text).map_err(|error| {
                    Error::Usage(format!(
                        "--security-opt seccomp: {path} is no JSON: {error}"
                    ))
                })?;
                resolved.push(format!("seccomp={profile}"));
            }
            _ => resolved.push(option.clone()),
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_profiles() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        fs::write(path("labels"), "a=1\nb\n").unwrap();
        let labels = labels(&[path("labels")], &["a=2".into()]).unwrap();
        assert_eq!(
            serde_json::to_string(&labels).unwrap(),
            r#"{"a":"2","b":""}"#
        );
        fs::write(path("profile"), "{ \"x\": 1 }").unwrap();
        let options = [
            format!("seccomp={}", path("profile")),
            "seccomp=unconfined".into(),
            "no-new-privileges".into(),
        ];
        assert_eq!(
            security_options(&options).unwrap(),
            [
                "seccomp={\"x\":1}",
                "seccomp=unconfined",
                "no-new-privileges"
            ]
        );
        assert!(security_options(&["seccomp=/nonexistent".into()]).is_err());
        assert!(environment(&["/nonexistent".into()], &[]).is_err());
    }
}
