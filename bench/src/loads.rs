//! A large image: loaded from an archive, and pulled from a registry on loopback.

use crate::daemons::{Daemon, Setting, succeed};
use crate::measure::{Budget, Contender, Failure, race, table};
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Files of 1 MiB in the image.
const FILES: usize = 300;
/// Where the registry listens, in each daemon's network namespace.
const REGISTRY: &str = "127.0.0.1:5000";
const NAME: &str = "big:latest";
/// Thrice as fast.
const BUDGET: Budget = Budget {
    subject: 0,
    peer: 1,
    factor: 1.0 / 3.0,
};

/// A registry in a daemon's network namespace.
struct Registry(Child);

impl Registry {
    fn start(daemon: &Daemon, configuration: &Path) -> Result<Self, Failure> {
        let child = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", daemon.pid()))
            .args(["docker-registry", "serve"])
            .arg(configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Races the daemons at it.
pub fn compare(setting: &Setting<'_>, gamut: &Daemon, dockerd: &Daemon) -> Result<String, Failure> {
    let archive = archive(setting, dockerd)?;
    let events = "From fork of the client to its end. Before each turn the image is removed and \
        everything that was written is on disk.";
    let rest = Duration::from_millis(400);
    let load = |daemon| {
        let archive = archive.as_str();
        move |_| Daemon::run_docker(daemon, &["load", "-i", archive])
    };
    let mut contenders = [
        Contender::new("docker load on gamut", load(gamut)).prepared(|| remove(gamut, NAME)),
        Contender::new("docker load on dockerd", load(dockerd)).prepared(|| remove(dockerd, NAME)),
    ];
    let title = format!("Load of a {FILES} MiB image (one plain layer, {FILES} files)");
    let mut text = table(
        &title,
        events,
        &race(&mut contenders, setting.rounds, rest)?,
        &[BUDGET],
    );

    let configuration = setting.directory.join("registry.yml");
    let storage = setting.directory.join("registry").display().to_string();
    fs::write(
        &configuration,
        format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  \
             filesystem:\n    rootdirectory: {storage}\nhttp:\n  addr: {REGISTRY}\n"
        ),
    )?;
    let _registries = [
        Registry::start(dockerd, &configuration)?,
        Registry::start(gamut, &configuration)?,
    ];
    let remote = format!("{REGISTRY}/{NAME}");
    dockerd.run_docker(&["tag", NAME, &remote])?;
    let until = Instant::now() + Duration::from_secs(20);
    while let Err(error) = dockerd.run_docker(&["push", "-q", &remote]) {
        if Instant::now() > until {
            return Err(error);
        }
    }
    let pull = |daemon| {
        let remote = remote.as_str();
        move |_| Daemon::run_docker(daemon, &["pull", "-q", remote])
    };
    let remove_all = |daemon| {
        remove(daemon, NAME)?;
        remove(daemon, &remote)
    };
    let mut contenders = [
        Contender::new("docker pull on gamut", pull(gamut)).prepared(|| remove_all(gamut)),
        Contender::new("docker pull on dockerd", pull(dockerd)).prepared(|| remove_all(dockerd)),
    ];
    text.push_str(&table(
        "Pull of the same from a registry on loopback (gzip)",
        events,
        &race(&mut contenders, setting.rounds, rest)?,
        &[BUDGET],
    ));
    Ok(text)
}

fn remove(daemon: &Daemon, name: &str) -> Result<(), Failure> {
    let _absent = daemon.docker(&["rmi", "-f", name]).output()?;
    succeed(&mut Command::new("sync"))
}

/// An archive of an image of one layer, half of whose files compress.
fn archive(setting: &Setting<'_>, dockerd: &Daemon) -> Result<String, Failure> {
    let tree = setting.directory.join("big");
    fs::create_dir_all(&tree)?;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for index in 0..FILES {
        let mut content = Vec::with_capacity(1 << 20);
        while content.len() < 1 << 20 {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            content.extend_from_slice(&seed.to_le_bytes());
            if index % 2 == 0 {
                content.extend_from_slice(&[0; 8]);
            }
        }
        fs::write(tree.join(format!("file{index}")), content)?;
    }
    let at = |name: &str| setting.directory.join(name).display().to_string();
    let (layer, archive) = (at("big.tar"), at("big-image.tar"));
    succeed(
        Command::new("tar")
            .args(["-cf", &layer, "-C"])
            .arg(&tree)
            .arg("."),
    )?;
    dockerd.run_docker(&["import", &layer, NAME])?;
    dockerd.run_docker(&["save", "-o", &archive, NAME])?;
    fs::remove_file(&layer)?;
    fs::remove_dir_all(&tree)?;
    Ok(archive)
}
