//! podman beside the daemons, where it is installed.

use crate::daemons::{Setting, succeed};
use crate::measure::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// podman with roots, a network and a mount namespace of its own. It has no daemon: each command
/// enters the namespaces, which costs about a millisecond.
pub struct Podman {
    /// Keeps the namespaces.
    holder: Child,
    directory: PathBuf,
}

impl Podman {
    /// Makes its namespaces and loads `archive`; `None` where podman is not installed.
    ///
    /// # Errors
    /// If it is installed and does not work.
    pub fn start(setting: &Setting<'_>, archive: &str) -> Result<Option<Self>, Failure> {
        if Command::new("podman").arg("--version").output().is_err() {
            return Ok(None);
        }
        let directory = setting.directory.join("podman");
        fs::create_dir_all(directory.join("networks"))?;
        fs::write(
            directory.join("containers.conf"),
            format!(
                "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=32768:32768\"]\n\
                 [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n\
                 runtime = \"runc\"\n[network]\nnetwork_config_dir = \"{}/networks\"\n",
                directory.display()
            ),
        )?;
        // Its locks and the addresses that it has given out are outside its roots.
        let ready = directory.join("ready");
        let holder = Command::new("unshare")
            .args(["-n", "-m", "sh", "-c"])
            .arg(
                "ip link set lo up && mkdir -p /var/lib/cni && mount -t tmpfs cni /var/lib/cni && \
                 mount -t tmpfs locks /dev/shm && touch \"$0\" && exec sleep infinity",
            )
            .arg(&ready)
            .stdin(Stdio::null())
            .spawn()?;
        let podman = Self { holder, directory };
        wait_for(&ready)?;
        podman.run(&["load", "-i", archive])?;
        Ok(Some(podman))
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it cannot be run, and what it says if it fails.
    pub fn run(&self, words: &[&str]) -> Result<(), Failure> {
        let at = |name: &str| self.directory.join(name);
        succeed(
            Command::new("nsenter")
                .args(["-n", "-m", "-t", &self.holder.id().to_string(), "podman"])
                .args(["--storage-driver", "overlay", "--root"])
                .arg(at("root"))
                .arg("--runroot")
                .arg(at("run"))
                .args(words)
                .env("CONTAINERS_CONF", at("containers.conf"))
                .stdin(Stdio::null()),
        )
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["rm", "-a", "-f", "-t", "0"]) {
            eprintln!("remove podman's containers: {error}");
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn wait_for(path: &Path) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(10);
    while !path.exists() {
        if Instant::now() > until {
            return Err("podman's namespaces were not made".into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
