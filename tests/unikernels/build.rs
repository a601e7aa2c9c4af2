//! Building: the same bytes everywhere, and the example of the documentation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::guest::{MICROVM, Setup, image};

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("in the repository").to_owned()
}

/// Copies a folder of sources.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if entry.file_name() != "target" {
                copy(&entry.path(), &target);
            }
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_build_in_another_folder_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = folder.path().join("another/place");
    for part in ["crates/abi", "unikernels", "scripts"] {
        copy(&root().join(part), &elsewhere.join(part));
    }
    fs::copy(root().join("Cargo.toml"), elsewhere.join("Cargo.toml")).unwrap();
    run(Command::new(elsewhere.join("scripts/unikernel"))
        .arg("hello")
        .env("CARGO_TARGET_DIR", folder.path().join("target")));
    let here = fs::read(image("hello")).unwrap();
    let there = fs::read(folder.path().join("target/unikernels/hello")).unwrap();
    assert!(here == there, "the files differ");
    let has = |text: &[u8]| here.windows(text.len()).any(|window| window == text);
    assert!(
        !has(root().as_os_str().as_encoded_bytes()),
        "it holds the path of its sources"
    );
}

/// The block of a language with a file's name above it.
fn example<'text>(document: &'text str, file: &str) -> &'text str {
    let (_, rest) = document
        .split_once(&format!("`{file}`:\n\n```"))
        .expect(file);
    let (_, rest) = rest.split_once('\n').expect("a block");
    rest.split_once("```").expect("the block ends").0
}

#[test]
fn the_example_of_the_documentation_runs() {
    let document = fs::read_to_string(root().join("docs/unikernels.md")).unwrap();
    let main = example(&document, "src/main.rs");
    let lines = main.lines().filter(|line| !line.is_empty()).count();
    assert!(lines <= 15, "{lines} lines are not fifteen");
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let unikernels = root().join("unikernels");
    let manifest = example(&document, "Cargo.toml")
        .replace("/path/to/gamut/unikernels", unikernels.to_str().unwrap());
    place("Cargo.toml", &manifest);
    place("build.rs", example(&document, "build.rs"));
    place("src/main.rs", main);
    fs::copy(
        unikernels.join("Cargo.lock"),
        folder.path().join("Cargo.lock"),
    )
    .unwrap();
    run(Command::new("cargo")
        .args([
            "build",
            "--release",
            "--offline",
            "--target",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(folder.path())
        .env("CARGO_TARGET_DIR", folder.path().join("target"))
        .env_remove("RUSTFLAGS"));
    let built = folder
        .path()
        .join("target/x86_64-unknown-linux-gnu/release/greeter");
    let Some(setup) = Setup::new(&built, MICROVM) else {
        return;
    };
    let port = crate::guest::free_port();
    let mut guest = setup.network(port, 80).start();
    guest.prints("greeter is ready");
    let url = format!("http://127.0.0.1:{port}/you");
    let output = Command::new("curl")
        .args([
            "-s",
            "--max-time",
            "60",
            "--retry",
            "5",
            "--retry-all-errors",
            &url,
        ])
        .output()
        .expect("curl");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Hello, /you!\n");
}
