//! Test binaries: finding them in cargo's messages, and listing their tests.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::Value;

/// A test binary.
#[derive(Debug)]
pub struct Binary {
    /// `package::target`, or only `package` for the tests beside the code of its library.
    name: String,
    path: PathBuf,
    /// Tests run where `cargo test` runs them.
    directory: PathBuf,
    is_integration: bool,
}

/// One test of a binary.
#[derive(Debug)]
pub struct Test {
    binary: Arc<Binary>,
    path: String,
    name: String,
    is_ignored: bool,
}

/// The test binaries that `cargo test --no-run --message-format=json` names.
pub fn parse_messages(messages: &str) -> Vec<Arc<Binary>> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter_map(|message| parse_artifact(&message))
        .map(Arc::new)
        .collect()
}

fn parse_artifact(message: &Value) -> Option<Binary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?;
    let kind = message["target"]["kind"][0].as_str()?;
    let target = message["target"]["name"].as_str()?;
    // `path+file:///…/crates/cli#gamut-cli@0.1.0`, or `…/crates/cli#0.1.0`
    let id = message["package_id"].as_str()?.rsplit('#').next()?;
    let package = match id.split_once('@') {
        Some((name, _)) => name.to_owned(),
        None => directory.file_name()?.to_str()?.to_owned(),
    };
    let name = match kind {
        "lib" => package,
        _ => format!("{package}::{target}"),
    };
    Some(Binary {
        name,
        path,
        directory: directory.to_owned(),
        is_integration: kind == "test",
    })
}

impl Binary {
    /// Its tests.
    ///
    /// # Errors
    /// If it cannot be run, or does not list.
    pub fn list(self: &Arc<Self>) -> Result<Vec<Test>, String> {
        let ignored: HashSet<String> = self.names(&["--ignored"])?.into_iter().collect();
        let tests = self.names(&[])?.into_iter().map(|path| Test {
            name: format!("{} {path}", self.name),
            is_ignored: ignored.contains(&path),
            binary: Arc::clone(self),
            path,
        });
        Ok(tests.collect())
    }

    fn names(&self, more: &[&str]) -> Result<Vec<String>, String> {
        let output = self
            .command()
            .args(["--list", "--format", "terse"])
            .args(more)
            .output()
            .map_err(|error| format!("listing the tests of {}: {error}", self.path.display()))?;
        if !output.status.success() {
            return Err(format!(
                "listing the tests of {}: {}: {}",
                self.path.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            ));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(names.map(str::to_owned).collect())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command
            .current_dir(&self.directory)
            .env("CARGO_MANIFEST_DIR", &self.directory)
            .stdin(Stdio::null());
        command
    }
}

impl Test {
    /// Its name, with that of its binary.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is to be run only on request.
    pub fn is_ignored(&self) -> bool {
        self.is_ignored
    }

    /// Whether it is not a test beside the code.
    pub fn is_integration(&self) -> bool {
        self.binary.is_integration
    }

    /// The command that runs it and nothing else.
    pub fn command(&self) -> Command {
        let mut command = self.binary.command();
        command.args(["--exact", &self.path, "--nocapture"]);
        if self.is_ignored {
            command.arg("--ignored");
        }
        command
    }
}
