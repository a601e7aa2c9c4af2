//! One test body for every level of isolation that claims to be able to play it.
//!
//! The image `probe` has two forms, a script for Linux and a unikernel, which do the same.
//! `--isolation` picks.

mod debug;
mod images;
mod kills;
mod lifecycle;
mod names;
mod network;
mod run;
mod unikernel;

use gamut_tests::{Daemon, Output, eventually, has, skipped};

/// A level under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Container,
    Unikernel,
    /// A unikernel where there is no `/dev/kvm`.
    Translated,
}

/// Makes a test of each body for each level.
macro_rules! at_every_level {
    ($($body:ident),+ $(,)?) => {
        mod at_container {
            $(#[test]
            fn $body() {
                super::$body(super::Level::Container);
            })+
        }
        mod at_unikernel {
            $(#[test]
            fn $body() {
                super::$body(super::Level::Unikernel);
            })+
        }
        mod at_unikernel_without_kvm {
            $(#[test]
            fn $body() {
                super::$body(super::Level::Translated);
            })+
        }
    };
}
pub(crate) use at_every_level;

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Unikernel | Self::Translated => "unikernel",
        }
    }

    /// A daemon with the image `probe`. `None`, said aloud, if the machine cannot.
    pub fn daemon(self) -> Option<Daemon> {
        let kvm = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm");
        if self == Self::Unikernel && kvm.is_err() {
            skipped("no /dev/kvm");
            return None;
        }
        if self == Self::Translated {
            if !has("qemu-system-x86_64") {
                return None;
            }
            // On a machine without it there is nothing to hide.
            let hidden = ["/dev/kvm"];
            return Daemon::with_probe_hiding(if kvm.is_ok() { &hidden } else { &[] });
        }
        Daemon::with_probe()
    }

    /// Runs the probe to its end.
    #[track_caller]
    pub fn run(self, daemon: &Daemon, options: &[&str], words: &[&str]) -> Output {
        let head = ["run", "--rm", "--isolation", self.word()];
        daemon.gamut(&[&head[..], options, &["probe"], words].concat())
    }

    /// Starts the probe under a name.
    #[track_caller]
    pub fn start(self, daemon: &Daemon, name: &str, options: &[&str], words: &[&str]) {
        let head = ["run", "-d", "--name", name, "--isolation", self.word()];
        daemon.ok(&[&head[..], options, &["probe"], words].concat());
    }
}

/// Waits until a workload has said something.
#[track_caller]
pub fn said(daemon: &Daemon, name: &str, text: &str) {
    eventually(&format!("{name} has said {text:?}"), || {
        daemon.gamut(&["logs", name]).stdout.contains(text)
    });
}

/// Field of a workload's state.
#[track_caller]
pub fn state(daemon: &Daemon, name: &str, field: &str) -> serde_json::Value {
    daemon.inspect(name)["State"][field].take()
}
