//! What the tests on real hierarchies share.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "each test file uses a part"
)]

use gamut_cgroup::{Group, Hierarchies};
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A group that is removed with its parent when the test ends, however it ends.
pub struct TestGroup {
    pub group: Group,
    hierarchies: Hierarchies,
    parent: String,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl TestGroup {
    pub fn new(hierarchies: &Hierarchies) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let parent = format!("/gamut-test-{}-{number}", std::process::id());
        let group = Group::at(hierarchies, &format!("{parent}/one")).unwrap();
        Self {
            group,
            hierarchies: hierarchies.clone(),
            parent,
        }
    }

    pub fn parent(&self) -> Group {
        Group::at(&self.hierarchies, &self.parent).unwrap()
    }

    pub fn parent_path(&self) -> &str {
        &self.parent
    }
}

impl Drop for TestGroup {
    fn drop(&mut self) {
        let parent = self.parent();
        let _ = parent.thaw();
        let _ = parent.kill();
        if let Err(error) = parent.remove() {
            eprintln!("LEAK: {error}");
        }
    }
}

/// A shell that waits for [`go`] before it runs the script.
pub fn shell(group: &Group, script: &str) -> Child {
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("read line; {script}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    group.add_process(child.id()).unwrap();
    child
}

/// Lets the script run.
pub fn go(child: &mut Child) {
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
}

/// Runs a script in the group to its end.
pub fn run(group: &Group, script: &str) -> Output {
    let mut child = shell(group, script);
    go(&mut child);
    child.wait_with_output().unwrap()
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether tests that make groups can run.
pub fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| {
        line.strip_prefix("Uid:")
            .is_some_and(|rest| rest.split_ascii_whitespace().nth(1) == Some("0"))
    })
}
