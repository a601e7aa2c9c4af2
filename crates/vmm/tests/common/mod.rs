//! Building the test guest and running the monitor with it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub const MONITOR: &str = env!("CARGO_BIN_EXE_gamut-monitor");

/// Whether this machine can run guests; says so aloud if not.
pub fn has_kvm() -> bool {
    let can = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_ok();
    if !can {
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        eprintln!("SKIPPED: {test}: /dev/kvm cannot be opened");
    }
    can
}

/// The test guest's ELF file.
pub fn guest() -> &'static Path {
    static GUEST: OnceLock<PathBuf> = OnceLock::new();
    GUEST.get_or_init(|| compile("guest"))
}

/// Makes the ELF file of a guest whose sources are in this folder.
pub fn compile(guest: &str) -> PathBuf {
    // Every test binary makes its own: they run side by side.
    let name = std::env::current_exe().expect("this program");
    let name = name
        .file_name()
        .and_then(|name| name.to_str())
        .expect("a name");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let done = folder.join(format!("{guest}-{name}"));
    // Each test may be a process of its own: what one makes is never half there for another.
    let out = folder.join(format!("{guest}-{name}-{}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/common")
        .join(guest);
    let output = Command::new(option_env!("RUSTC").unwrap_or("rustc"))
        .arg(source.join("main.rs"))
        .args([
            "--edition",
            "2024",
            "--crate-name",
            guest,
            "--crate-type",
            "bin",
        ])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=1",
            "-C",
            "force-frame-pointers=yes",
        ])
        .args(["-C", "relocation-model=static", "-A", "warnings"])
        .args(
            ["-nostartfiles", "-nostdlib", "-static", "-no-pie"]
                .map(|argument| format!("-Clink-arg={argument}")),
        )
        .args(
            ["--build-id=none", "-z,norelro", "--no-eh-frame-hdr"]
                .map(|argument| format!("-Clink-arg=-Wl,{argument}")),
        )
        .arg(format!(
            "-Clink-arg=-Wl,-T,{}",
            source.join("link.ld").display()
        ))
        .arg("-o")
        .arg(&out)
        .output()
        .expect("rustc runs");
    assert!(
        output.status.success(),
        "the test guest: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(&out, &done).expect("the guest is renamed");
    done
}

/// A monitor to be.
pub struct Setup {
    pub folder: tempfile::TempDir,
    pub config: gamut_abi::monitor::MonitorConfig,
}

/// One that lets the test guest do something.
pub fn setup(what: &str) -> Setup {
    Setup {
        folder: tempfile::tempdir().expect("a folder"),
        config: gamut_abi::monitor::MonitorConfig {
            version: gamut_abi::monitor::MONITOR_CONFIG_VERSION,
            image_path: guest().to_str().expect("a plain path").to_owned(),
            memory_bytes: None,
            args: vec!["guest".to_owned(), what.to_owned()],
            env: vec!["KEY=value".to_owned()],
            hostname: "host".to_owned(),
            blocks: Vec::new(),
            rofs_path: None,
            resolv_conf_path: None,
            hosts_path: None,
            accelerator: gamut_abi::monitor::Accelerator::Auto,
            status_path: None,
            scratch_path: None,
            debug_socket_path: None,
        },
    }
}

impl Setup {
    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        let path = self.folder.path().join("monitor.json");
        std::fs::write(&path, serde_json::to_vec(&self.config).expect("JSON")).expect("a file");
        path
    }

    /// The command, in a network namespace of its own.
    pub fn command(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--net", MONITOR]).arg(self.config_path());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs it to its end.
    pub fn run(&self) -> Outcome {
        finish(self.command().spawn().expect("unshare runs"))
    }
}

/// How a monitor has ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub output: String,
    pub errors: String,
}

/// Waits for a monitor's end, but not for ever.
pub fn finish(mut child: Child) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut is_late = false;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("a child");
            is_late = true;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().expect("a child");
    let outcome = Outcome {
        code: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    assert!(!is_late, "it does not end: {outcome:?}");
    outcome
}

/// Reads a child's output until it holds a text.
pub fn read_until(from: &mut impl Read, text: &str) -> String {
    let mut read = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&read).contains(text) {
        assert_eq!(from.read(&mut byte).expect("output"), 1, "ended: {read:?}");
        read.extend_from_slice(&byte);
    }
    String::from_utf8_lossy(&read).into_owned()
}
