//! A guest in QEMU.

use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use gamut_tests::{eventually, has, target_binary, until};

/// The machine that QEMU plays.
pub const MICROVM: &str = "microvm,isa-serial=on,rtc=on";

/// A unikernel that `./build` made.
pub fn image(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let beside = || {
        let profile = target_binary();
        let target = profile.parent().and_then(Path::parent);
        target.expect("a target directory").to_owned()
    };
    let path = target.unwrap_or_else(beside).join("unikernels").join(name);
    assert!(path.exists(), "{}: build it with ./build", path.display());
    path
}

/// Configuration text: what the isolation level would tell.
pub fn config(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in entries {
        text.extend_from_slice(format!("{key}={value}\0").as_bytes());
    }
    text
}

/// The arguments of `probe`, as configuration.
pub fn arguments(words: &[&str]) -> Vec<u8> {
    let mut entries = vec![("arg", "/unikernel")];
    entries.extend(words.iter().map(|word| ("arg", *word)));
    config(&entries)
}

/// A port of this machine that nobody uses.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// What is to be started.
pub struct Setup {
    command: Command,
    /// Holds the configuration.
    folder: tempfile::TempDir,
}

impl Setup {
    /// A guest of an image. None, aloud, without QEMU.
    pub fn new(image: &Path, machine: &str) -> Option<Self> {
        if !has("qemu-system-x86_64") {
            return None;
        }
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-M", machine, "-accel", "tcg", "-m", "32"])
            .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot"])
            .args(["-serial", "stdio"])
            .args(["-global", "virtio-mmio.force-legacy=false"])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .arg("-kernel")
            .arg(image);
        Some(Self {
            command,
            folder: tempfile::tempdir().expect("a folder"),
        })
    }

    /// With a configuration as boot module.
    pub fn config(mut self, text: &[u8]) -> Self {
        let path = self.folder.path().join("config");
        std::fs::write(&path, text).expect("written");
        self.command.arg("-initrd").arg(path);
        self
    }

    /// With further arguments of QEMU.
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// With a network of QEMU's own, in which a port of this machine leads to one of the guest.
    pub fn network(self, port: u16, guest_port: u16) -> Self {
        let network = format!("user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:{guest_port}");
        self.args(&["-netdev", &network])
            .args(&["-device", "virtio-net-device,netdev=n0"])
    }

    /// With a file as block device.
    pub fn block(self, path: &Path) -> Self {
        let drive = format!("if=none,id=b0,format=raw,file={}", path.display());
        self.args(&["-drive", &drive])
            .args(&["-device", "virtio-blk-device,drive=b0"])
    }

    /// Starts it.
    pub fn start(mut self) -> Guest {
        let mut child = self
            .command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("QEMU starts");
        let mut serial = child.stdout.take().expect("a pipe");
        let output = Arc::new(Mutex::new(Vec::new()));
        let gathered = Arc::clone(&output);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = serial.read(&mut bytes) {
                gathered.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Guest {
            child,
            output,
            reader: Some(reader),
            _folder: self.folder,
        }
    }
}

/// A running guest; killed when it is dropped.
pub struct Guest {
    child: Child,
    output: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Guest {
    /// What it has printed so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().unwrap()).into_owned()
    }

    /// Waits until it has printed a text.
    pub fn prints(&mut self, text: &str) {
        eventually(&format!("the guest prints {text:?}"), || {
            let output = self.output();
            let has_ended = self.child.try_wait().expect("a child").is_some();
            assert!(output.contains(text) || !has_ended, "it ended: {output}");
            output.contains(text)
        });
    }

    /// Waits until it has ended. Its exit code, as far as QEMU can hand it on (7 bits), and what it
    /// printed.
    pub fn ends(mut self) -> (i32, String) {
        let status = until("the guest ends", || self.child.try_wait().expect("a child"));
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader ends with the pipe");
        }
        let output = self.output();
        let code = status.code().unwrap_or_else(|| {
            panic!("QEMU was ended by signal {:?}: {output}", status.signal());
        });
        assert_eq!(code % 2, 1, "QEMU itself failed with {code}: {output}");
        (code / 2, output)
    }

    /// Ends it as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it was a child");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `probe` without devices until it ends.
pub fn probe(words: &[&str]) -> Option<(i32, String)> {
    let setup = Setup::new(&image("probe"), MICROVM)?;
    Some(setup.config(&arguments(words)).start().ends())
}
