//! What is said about a container with each of its log lines: the tag, chosen labels and variables.

use crate::container::record::ContainerRecord;
use crate::container::spec::LogSpec;
use crate::error::{Error, Result};
use gamut_spec::id;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The words of a tag (Docker's "Log tags"), without braces and dot.
const TAG_WORDS: [&str; 7] = [
    "ID",
    "FullID",
    "Name",
    "ImageName",
    "ImageID",
    "ImageFullID",
    "DaemonName",
];

/// Labels and variables of a container that its log options choose, and its tag if it has one.
#[must_use]
pub fn attributes(record: &ContainerRecord) -> BTreeMap<String, String> {
    let options = &record.spec.log.options;
    let chosen = |option: &str| {
        let list = options.get(option).map_or("", String::as_str);
        list.split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
    };
    let mut attributes = BTreeMap::new();
    for name in chosen("labels") {
        if let Some(value) = record.spec.labels.get(name) {
            attributes.insert(name.to_owned(), value.clone());
        }
    }
    for name in chosen("env") {
        let value = record
            .process
            .environment
            .iter()
            .filter_map(|entry| entry.split_once('='))
            .find(|(variable, _)| *variable == name);
        if let Some((_, value)) = value {
            attributes.insert(name.to_owned(), value.to_owned());
        }
    }
    if record.spec.log.driver == "json-file"
        && let Some(text) = options.get("tag").filter(|text| !text.is_empty())
    {
        attributes.insert("tag".to_owned(), expand(text, record));
    }
    attributes
}

/// The attributes as `logs --details` has them before each line: `name=value,name=value`.
#[must_use]
pub fn details(record: &ContainerRecord) -> String {
    let pairs: Vec<String> = attributes(record)
        .iter()
        .map(|(name, value)| format!("{}={}", query_escape(name), query_escape(value)))
        .collect();
    pairs.join(",")
}

/// The tag of a container whose lines go elsewhere; its short id by default.
pub(super) fn tag(record: &ContainerRecord) -> String {
    match record.spec.log.options.get("tag") {
        Some(text) if !text.is_empty() => expand(text, record),
        _ => id::short(&record.id).to_owned(),
    }
}

/// # Errors
/// Naming the word that is none.
pub(super) fn check_tag(log: &LogSpec) -> Result<()> {
    let text = log.options.get("tag").map_or("", String::as_str);
    match parts(text).find(|part| matches!(part, Part::Word(word) if !TAG_WORDS.contains(word))) {
        Some(Part::Word(word)) => Err(Error::invalid(format!(
            "invalid log option tag {text:?}: {{{{.{word}}}}} is none of {}",
            TAG_WORDS.map(|word| format!("{{{{.{word}}}}}")).join(", ")
        ))),
        _ => Ok(()),
    }
}

enum Part<'a> {
    Text(&'a str),
    Word(&'a str),
}

/// Cuts a template at its `{{.Word}}`s.
fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(inner) = rest.strip_prefix("{{")
            && let Some((word, after)) = inner.split_once("}}")
        {
            rest = after;
            let word = word.trim();
            return Some(Part::Word(word.strip_prefix('.').unwrap_or(word)));
        }
        let from = usize::from(rest.starts_with("{{")) * 2;
        let end = rest
            .get(from..)
            .and_then(|tail| tail.find("{{"))
            .map_or(rest.len(), |at| at + from);
        let (head, tail) = rest.split_at(end);
        rest = tail;
        Some(Part::Text(head))
    })
}

fn expand(text: &str, record: &ContainerRecord) -> String {
    let image_id = record
        .image_id
        .split_once(':')
        .map_or(record.image_id.as_str(), |(_, digest)| digest);
    parts(text)
        .map(|part| match part {
            Part::Text(text) => text,
            Part::Word("ID") => id::short(&record.id),
            Part::Word("FullID") => &record.id,
            Part::Word("Name") => &record.name,
            Part::Word("ImageName") => &record.spec.image,
            Part::Word("ImageID") => image_id.get(..12).unwrap_or(image_id),
            Part::Word("ImageFullID") => &record.image_id,
            Part::Word("DaemonName") => "gamut",
            Part::Word(_) => "",
        })
        .collect()
}

/// As Go's url.QueryEscape.
fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                escaped.push(char::from(byte));
            }
            b' ' => escaped.push('+'),
            other => {
                // Writing to a string does not fail.
                let _ = write!(escaped, "%{other:02X}");
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates() {
        let words = |text: &str| {
            parts(text)
                .map(|part| match part {
                    Part::Text(text) => format!("'{text}'"),
                    Part::Word(word) => word.to_owned(),
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(
            words("{{.ImageName}}/{{ .Name }}!"),
            "ImageName '/' Name '!'"
        );
        assert_eq!(words("plain"), "'plain'");
        assert_eq!(words("{{open"), "'{{open'");
        assert_eq!(words("a{{{{.ID}}"), "'a' {{.ID");
        assert_eq!(query_escape("a b=c/ü"), "a+b%3Dc%2F%C3%BC");
    }
}
