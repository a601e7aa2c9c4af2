//! docs/docker-compatibility.md, out of records of tests that ran.

use gamut_tests::swagger::{Operation, Swagger, Version, parse_version};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// What is known of one operation.
#[derive(Default)]
struct Shown {
    statuses: BTreeSet<u64>,
    /// By whom, in which versions.
    by: BTreeMap<String, BTreeSet<Version>>,
}

/// What the file begins with.
const HEAD: &str = "\
# Docker compatibility, operation by operation

Generated from the records of tests that ran (`./test --external docker-tour=SWAGGER-DIR` says how);
do not edit. An operation is listed with the statuses that Gamut answered with, and with who asked
for it in which versions of the API. Each JSON answer was held against the public description of its
version.

";

/// The document. `sources` are labels with the files of records that stand for them.
pub fn document(directory: &Path, newest: Version, sources: &[(String, String)]) -> String {
    let mut shown: BTreeMap<Operation, Shown> = BTreeMap::new();
    let mut unlisted: BTreeSet<String> = BTreeSet::new();
    let mut totals: BTreeMap<&String, (BTreeSet<Version>, usize, usize)> = BTreeMap::new();
    for (label, file) in sources {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let (versions, answers, wrong) = totals.entry(label).or_default();
        for line in text.lines() {
            let record: Value = serde_json::from_str(line).expect("a line is JSON");
            let word = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
            let operation = Operation {
                method: word("method"),
                path: word("operation"),
            };
            if record["described"] == false {
                unlisted.insert(operation.to_string());
                continue;
            }
            *answers += 1;
            let problems = record["problems"].as_array().into_iter().flatten();
            let is_about_status =
                |one: &&Value| one.as_str().is_some_and(|text| text.starts_with("status "));
            *wrong += usize::from(problems.filter(|one| !is_about_status(one)).count() > 0);
            let version = parse_version(&word("version")).expect("a version");
            versions.insert(version);
            let entry = shown.entry(operation).or_default();
            entry.statuses.extend(record["status"].as_u64());
            entry.by.entry(label.clone()).or_default().insert(version);
        }
    }
    let mut text = HEAD.to_owned();
    text.push_str("| asked by | versions | answers | of these not as described |\n| --- | --- | --- | --- |\n");
    for (label, (versions, answers, wrong)) in totals {
        let versions = range(&versions);
        let _ = writeln!(text, "| {label} | {versions} | {answers} | {wrong} |");
    }
    let swagger = Swagger::load(directory, newest);
    text.push_str("\n| operation | answers | asked for by |\n| --- | --- | --- |\n");
    for operation in swagger.operations() {
        let (answers, by) = match shown.get(&operation) {
            None => ("not asked for".to_owned(), String::new()),
            Some(shown) => (answers(&operation, &shown.statuses), asked(&shown.by)),
        };
        let _ = writeln!(text, "| `{operation}` | {answers} | {by} |");
    }
    if !unlisted.is_empty() {
        let list: Vec<String> = unlisted.iter().map(|one| format!("`{one}`")).collect();
        let _ = writeln!(
            text,
            "\nAsked for, but in no description of that version: {}.",
            list.join(", ")
        );
    }
    text
}

/// What swarm mode is asked for by.
const OF_SWARMS: [&str; 7] = [
    "/swarm",
    "/nodes",
    "/services",
    "/tasks",
    "/secrets",
    "/configs",
    "/volumes",
];

fn answers(operation: &Operation, statuses: &BTreeSet<u64>) -> String {
    let is_of_swarms = OF_SWARMS
        .iter()
        .any(|start| operation.path.starts_with(start));
    let numbers: Vec<String> = statuses.iter().map(u64::to_string).collect();
    let numbers = numbers.join(", ");
    match statuses.first() {
        Some(501) => format!("{numbers}: not supported yet"),
        Some(503) if is_of_swarms => format!("{numbers}: as a node that is in no swarm"),
        _ => numbers,
    }
}

fn asked(by: &BTreeMap<String, BTreeSet<Version>>) -> String {
    let list: Vec<String> = by
        .iter()
        .map(|(label, versions)| format!("{label} ({})", range(versions)))
        .collect();
    list.join("; ")
}

fn range(versions: &BTreeSet<Version>) -> String {
    let text = |version: &Version| format!("{}.{}", version.0, version.1);
    let list: Vec<String> = versions.iter().map(text).collect();
    list.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_told_of() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let yaml = "paths:\n  /a:\n    get: {responses: {200: {}}}\n    post: {responses: {200: {}}}\n  /b:\n    get: {responses: {200: {}}}\n";
        std::fs::write(path("v1.30.yaml"), yaml).unwrap();
        let records = "{\"version\":\"1.30\",\"method\":\"GET\",\"operation\":\"/a\",\"described\":true,\"status\":200,\"problems\":[\".X is missing\"]}\n\
            {\"version\":\"1.30\",\"method\":\"POST\",\"operation\":\"/a\",\"described\":true,\"status\":501,\"problems\":[\"status 501 is not described\"]}\n\
            {\"version\":\"1.30\",\"method\":\"GET\",\"operation\":\"/c\",\"described\":false,\"status\":404,\"problems\":[]}\n";
        let file = path("records").display().to_string();
        std::fs::write(&file, records).unwrap();
        let text = document(directory.path(), (1, 30), &[("tool".to_owned(), file)]);
        for line in [
            "| tool | 1.30 | 2 | 1 |",
            "| `GET /a` | 200 | tool (1.30) |",
            "| `POST /a` | 501: not supported yet | tool (1.30) |",
            "| `GET /b` | not asked for |  |",
            "`GET /c`",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
