//! The rules of the house that no lint knows: which crate may use which, where code lies, how long
//! a file may be.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// No source file is longer, unless it is listed below.
const MAX_LINES: usize = 700;

/// Files that may be longer, and why.
const LONG_FILES: &[(&str, &str)] = &[
    (
        "crates/docker-api/src/containers/create.rs",
        "one flat translation of one flat request",
    ),
    (
        "crates/isolation/src/compile/tests.rs",
        "a table of cases, one per field of config.json",
    ),
    (
        "tests/faults/bad_input.rs",
        "one bad input after the other, each with its error",
    ),
];

/// Floors, lowest first (ARCHITECTURE.md).
const FLOORS: &[&[&str]] = &[
    &["abi", "spec"],
    &[
        "cgroup",
        "container",
        "image",
        "rootless",
        "seccomp",
        "supervisor",
        "vmm",
    ],
    &["dns", "isolation", "network"],
    &["engine"],
    &["cli", "docker-api", "runtime-cli"],
];

type Arrows = BTreeMap<String, BTreeSet<String>>;

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("tests/ lies in the repository")
        .to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo speaks JSON")
}

fn packages() -> Vec<Value> {
    metadata()["packages"]
        .as_array()
        .cloned()
        .unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// The crate's name without the house's.
fn short(name: &str) -> &str {
    name.strip_prefix("gamut-").unwrap_or(name)
}

fn is_in_crates(package: &Value) -> bool {
    Path::new(text(package, "manifest_path")).starts_with(root().join("crates"))
}

/// The list of ARCHITECTURE.md.
fn allowed_arrows() -> Arrows {
    let document = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let (_, rest) = document
        .split_once("```arrows\n")
        .expect("ARCHITECTURE.md has a block of arrows");
    let (block, _) = rest.split_once("\n```").expect("the block ends");
    block
        .lines()
        .map(|line| {
            let (from, to) = line
                .split_once("->")
                .unwrap_or_else(|| panic!("not an arrow: {line:?}"));
            let to = to.split_whitespace().map(str::to_owned).collect();
            (from.trim().to_owned(), to)
        })
        .collect()
}

/// What the crates really use: normal and build dependencies. Tests may use what they like.
fn arrows() -> Arrows {
    let packages = packages();
    let house: BTreeSet<&str> = packages
        .iter()
        .map(|package| text(package, "name"))
        .collect();
    packages
        .iter()
        .filter(|package| is_in_crates(package))
        .map(|package| {
            let dependencies = package["dependencies"].as_array().into_iter().flatten();
            let used = dependencies
                .filter(|dependency| dependency["kind"] != "dev")
                .map(|dependency| text(dependency, "name"))
                .filter(|name| house.contains(name))
                .map(|name| short(name).to_owned());
            (short(text(package, "name")).to_owned(), used.collect())
        })
        .collect()
}

/// Every Rust source of the house, with its path from the root and its text.
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        let entries = fs::read_dir(directory).expect("a directory of the repository");
        for entry in entries.map(|entry| entry.expect("an entry")) {
            let path = entry.path();
            if entry.file_type().expect("a kind").is_dir() {
                if entry.file_name() != "target" {
                    walk(&path, found);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = root();
    let mut paths = Vec::new();
    for top in ["bench", "crates", "fuzz", "tests", "unikernels"] {
        if root.join(top).is_dir() {
            walk(&root.join(top), &mut paths);
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source is text");
        let path = path.strip_prefix(&root).expect("below the root");
        (path.display().to_string(), text)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn crates_use_only_what_the_architecture_allows() {
    let allowed = allowed_arrows();
    let mut wrong = Vec::new();
    for (from, used) in &arrows() {
        match allowed.get(from) {
            None => wrong.push(format!(
                "crate {from} is not in the list of ARCHITECTURE.md"
            )),
            Some(may) => {
                wrong.extend(
                    used.difference(may)
                        .map(|to| format!("{from} -> {to} is not allowed")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_architecture_lists_no_arrow_that_nobody_uses() {
    let used = arrows();
    let mut unused = Vec::new();
    for (from, may) in allowed_arrows() {
        // A crate may be listed before it exists.
        let Some(used) = used.get(&from) else {
            continue;
        };
        unused.extend(
            may.difference(used)
                .map(|to| format!("{from} -> {to} is not used")),
        );
    }
    assert!(unused.is_empty(), "{}", unused.join("\n"));
}

#[test]
fn nothing_knows_a_floor_above_it() {
    let floor = |name: &str| {
        FLOORS
            .iter()
            .position(|crates| crates.contains(&name))
            .unwrap_or_else(|| panic!("crate {name} is on no floor"))
    };
    for (from, to) in allowed_arrows().into_iter().chain(arrows()) {
        for to in to {
            assert!(floor(&to) <= floor(&from), "{from} -> {to} points upward");
        }
    }
}

#[test]
fn every_package_follows_the_workspace() {
    for package in packages() {
        let path = text(&package, "manifest_path");
        let manifest = fs::read_to_string(path).expect("a manifest");
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{path} does not take the lints of the workspace"
        );
        assert_eq!(text(&package, "license"), "Apache-2.0", "{path}");
        assert_eq!(package["publish"], Value::Array(Vec::new()), "{path}");
        assert!(
            !text(&package, "description").is_empty(),
            "{path}: no description"
        );
    }
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let sources = sources();
    for (path, text) in &sources {
        let lines = text.lines().count();
        let is_listed = LONG_FILES.iter().any(|(listed, _)| listed == path);
        assert!(
            lines <= MAX_LINES || is_listed,
            "{path} has {lines} lines: split it, or say in this file why not"
        );
    }
    for (path, _) in LONG_FILES {
        let listed = sources.iter().find(|(source, _)| source == path);
        let lines = listed.map_or(0, |(_, text)| text.lines().count());
        assert!(
            lines > MAX_LINES,
            "{path} need not be listed any more: {lines} lines"
        );
    }
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [
        "todo!(",
        "unimplemented!(",
        "dbg!(",
        "TODO",
        "FIXME",
        "XXX:",
    ];
    for (path, text) in sources() {
        // This file names them.
        if path == "tests/house.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let found = marks.iter().find(|mark| line.contains(**mark));
            assert!(found.is_none(), "{path}:{}: {}", number + 1, line.trim());
        }
    }
}

#[test]
fn every_unsafe_file_says_why() {
    for (path, text) in sources() {
        let uses = text.lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("unsafe {")
        });
        assert!(
            !uses || text.contains("SAFETY:"),
            "{path} has unsafe blocks and no SAFETY argument"
        );
    }
}

/// docs/security.md says of each escape which test tries it.
#[test]
fn escapes_are_tried_by_the_tests_that_are_named_and_all_tests_are_named() {
    let document = fs::read_to_string(root().join("docs/security.md")).expect("docs/security.md");
    let named: BTreeSet<String> = document
        .split('`')
        .filter(|word| word.starts_with("escapes::"))
        .map(str::to_owned)
        .collect();
    let mut found = BTreeSet::new();
    for (path, text) in sources() {
        let Some(file) = path.strip_prefix("tests/e2e/escapes/") else {
            continue;
        };
        let module = file.trim_end_matches(".rs");
        for (_, rest) in text
            .split("#[test]")
            .skip(1)
            .filter_map(|rest| rest.split_once("fn "))
        {
            let name = rest.split('(').next().unwrap_or_default();
            found.insert(format!("escapes::{module}::{name}"));
        }
    }
    assert_eq!(
        named, found,
        "docs/security.md and tests/e2e/escapes differ"
    );
}
