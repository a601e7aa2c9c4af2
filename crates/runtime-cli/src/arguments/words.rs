//! Words of a command line: options with or without values, and the rest.

use crate::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;

/// One word.
pub(super) enum Word {
    /// Its name with the dashes, and the value behind `=` if there is one.
    Option(String, Option<String>),
    /// Anything else.
    Plain(String),
}

/// The words that have not been read yet.
pub(super) struct Words {
    words: std::vec::IntoIter<OsString>,
    /// `--` was seen: whatever comes is plain.
    only_plain: bool,
}

/// The error about an option that nobody knows.
pub(super) fn unknown(option: &str) -> Error {
    Error::Usage(format!("unknown option {option}"))
}

impl Words {
    pub(super) fn new(words: impl Iterator<Item = OsString>) -> Self {
        Self {
            words: words.collect::<Vec<_>>().into_iter(),
            only_plain: false,
        }
    }

    /// The next word. Long names have two dashes, however many were typed.
    pub(super) fn next(&mut self) -> Result<Option<Word>, Error> {
        let Some(word) = self.words.next() else {
            return Ok(None);
        };
        let word = into_text(word)?;
        if self.only_plain || word == "-" || !word.starts_with('-') {
            return Ok(Some(Word::Plain(word)));
        }
        if word == "--" {
            self.only_plain = true;
            return self.next();
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let letters = name.trim_start_matches('-');
        let dashes = if letters.chars().nth(1).is_none() {
            "-"
        } else {
            "--"
        };
        Ok(Some(Word::Option(format!("{dashes}{letters}"), value)))
    }

    /// All words that are left, as they are.
    pub(super) fn rest(&mut self) -> Result<Vec<String>, Error> {
        self.words.by_ref().map(into_text).collect()
    }

    /// The value of an option.
    pub(super) fn text(&mut self, option: &str, value: Option<String>) -> Result<String, Error> {
        match (value, self.words.next()) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(next)) => {
                // Not ours: put it back.
                let mut words = vec![next];
                words.extend(self.words.by_ref());
                self.words = words.into_iter();
                Ok(value)
            }
            (None, Some(next)) => into_text(next),
            (None, None) => Err(Error::Usage(format!("option {option} needs a value"))),
        }
    }

    /// The value of an option that is a path.
    pub(super) fn path(&mut self, option: &str, value: Option<String>) -> Result<PathBuf, Error> {
        let text = self.text(option, value)?;
        if text.is_empty() {
            return Err(Error::Usage(format!("option {option} needs a path")));
        }
        Ok(PathBuf::from(text))
    }

    /// The value of an option that is a number.
    pub(super) fn number<T: std::str::FromStr>(
        &mut self,
        option: &str,
        value: Option<String>,
    ) -> Result<T, Error> {
        let text = self.text(option, value)?;
        text.parse().map_err(|_| {
            Error::Usage(format!(
                "invalid value for {option}: {text:?} is no such number"
            ))
        })
    }

    /// The value of an option that is one of a few words.
    pub(super) fn choice<T: Clone>(
        &mut self,
        option: &str,
        value: Option<String>,
        choices: &[(&str, T)],
    ) -> Result<T, Error> {
        let text = self.text(option, value)?;
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Ok(meaning.clone()),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                Err(Error::Usage(format!(
                    "invalid value for {option}: {text:?} is none of {}",
                    words.join(", ")
                )))
            }
        }
    }
}

/// The meaning of an option without a value, or with `=true` or `=false`.
pub(super) fn flag(option: &str, value: Option<&str>) -> Result<bool, Error> {
    match value {
        None | Some("true" | "1" | "t") => Ok(true),
        Some("false" | "0" | "f") => Ok(false),
        Some(other) => Err(Error::Usage(format!(
            "invalid value for {option}: {other:?} is neither true nor false"
        ))),
    }
}

fn into_text(word: OsString) -> Result<String, Error> {
    word.into_string()
        .map_err(|word| Error::Usage(format!("argument {} is not UTF-8", word.display())))
}
