//! A registry on loopback, in a daemon's network namespace.

use std::path::Path;
use std::process::{Child, Stdio};

use crate::{Daemon, Output, Session, eventually, has, on_path};

/// A running registry; it ends when this is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
}

impl Registry {
    /// Address of every test's registry: namespaces are not shared.
    pub const ADDRESS: &'static str = "127.0.0.1:5000";

    /// Starts one. `None`, said aloud, if its program or skopeo, which fills it, is not installed.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start(daemon: &Daemon) -> Option<Self> {
        Self::start_with(daemon, "")
    }

    /// Starts one that knows only `me` with the password `secret`.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start_guarded(daemon: &Daemon) -> Option<Self> {
        let file = daemon.directory().join("htpasswd");
        std::fs::write(&file, HTPASSWD).expect("the test's directory is writable");
        let path = file.display();
        Self::start_with(
            daemon,
            &format!("auth:\n  htpasswd:\n    realm: here\n    path: {path}\n"),
        )
    }

    fn start_with(daemon: &Daemon, more: &str) -> Option<Self> {
        if !(has("docker-registry") && has("skopeo")) {
            return None;
        }
        let storage = daemon.directory().join("registry");
        let configuration = daemon.directory().join("registry.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: {}\n{more}",
            storage.display(),
            Self::ADDRESS
        );
        std::fs::write(&configuration, text).expect("the test's directory is writable");
        let child = daemon
            .command(on_path("docker-registry")?)
            .arg("serve")
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let registry = Self { child };
        eventually("the registry answers", || {
            daemon.fetch(Self::ADDRESS).is_some()
        });
        Some(registry)
    }

    /// Pushes an image that is a docker archive (as `save` writes) under a name such as `tool:1`;
    /// returns its whole reference.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn push(&self, daemon: &Daemon, archive: &Path, name: &str) -> String {
        let reference = format!("{}/{name}", Self::ADDRESS);
        let _ = skopeo(
            daemon,
            &[
                "copy",
                "--dest-tls-verify=false",
                &format!("docker-archive:{}", archive.display()),
                &format!("docker://{reference}"),
            ],
        )
        .ok();
        reference
    }
}

/// `me` and `secret`, as `htpasswd -B` writes them.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Runs skopeo in the daemon's network namespace.
///
/// # Panics
/// If it is not installed.
#[must_use]
pub fn skopeo(daemon: &Daemon, arguments: &[&str]) -> Output {
    let program = on_path("skopeo").expect("it was asked for");
    let mut command = daemon.command(program);
    command.arg("--insecure-policy").args(arguments);
    let mut session = Session::start(&mut command);
    session.close_stdin();
    session.wait()
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
