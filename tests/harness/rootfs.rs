//! Root filesystems for test images, as tar archives made on the spot.

use std::path::Path;
use std::sync::OnceLock;

use crate::skipped;

/// A root filesystem in the making.
pub struct Rootfs {
    archive: tar::Builder<Vec<u8>>,
}

impl Rootfs {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            archive: tar::Builder::new(Vec::new()),
        }
    }

    fn add(&mut self, path: &str, kind: tar::EntryType, mode: u32, owner: u64, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_size(content.len().try_into().expect("a length fits"));
        self.archive
            .append_data(&mut header, path, content)
            .expect("memory takes all");
    }

    /// Adds a directory.
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32, owner: u64) -> Self {
        self.add(path, tar::EntryType::Directory, mode, owner, &[]);
        self
    }

    /// Adds a file of root's.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.add(path, tar::EntryType::Regular, mode, 0, content);
        self
    }

    /// Adds a file of the machine.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn copy(self, from: &Path, to: &str, mode: u32) -> Self {
        let content =
            std::fs::read(from).unwrap_or_else(|error| panic!("read {}: {error}", from.display()));
        self.file(to, mode, &content)
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_mode(0o777);
        header.set_size(0);
        self.archive
            .append_link(&mut header, path, target)
            .expect("memory takes all");
        self
    }

    /// Adds a named pipe of root's.
    #[must_use]
    pub fn fifo(mut self, path: &str, mode: u32) -> Self {
        self.add(path, tar::EntryType::Fifo, mode, 0, &[]);
        self
    }

    /// The archive.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.archive.into_inner().expect("memory takes all")
    }
}

impl Default for Rootfs {
    fn default() -> Self {
        Self::new()
    }
}

/// The root filesystem of the tests' own image, with a shell, users (`alice` 1000, `bob` 1001),
/// and content to copy into volumes. `None`, said aloud, without a static busybox.
#[must_use]
pub fn busybox() -> Option<&'static [u8]> {
    static ARCHIVE: OnceLock<Option<Vec<u8>>> = OnceLock::new();
    let archive = ARCHIVE.get_or_init(|| Some(busybox_rootfs(busybox_program()?).finish()));
    if archive.is_none() {
        skipped("no busybox (package busybox-static)");
    }
    archive.as_deref()
}

/// The Debian root filesystem with systemd, nft and ip that `tests/debian` has made. `None`, said
/// aloud, if it is not there.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn debian() -> Option<Vec<u8>> {
    made_by_debootstrap("test-debian.tar")
}

/// As [`debian`], with PostgreSQL and busybox (`tests/debian postgresql`).
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn debian_with_postgresql() -> Option<Vec<u8>> {
    made_by_debootstrap("test-debian-postgresql.tar")
}

fn made_by_debootstrap(name: &str) -> Option<Vec<u8>> {
    let test = std::env::current_exe().expect("this executable has a path");
    let archive = test
        .ancestors()
        .map(|directory| directory.join(name))
        .find(|archive| archive.is_file());
    let Some(archive) = archive else {
        skipped("no Debian root filesystem (tests/debian or ./test --long makes it)");
        return None;
    };
    Some(std::fs::read(archive).expect("it can be read"))
}

/// The root filesystem of [`busybox`] with the hostile program of `tests/attacker` at
/// `/bin/attacker`, to be added to. `None`, said aloud, without a static busybox.
///
/// # Panics
/// If the hostile program was not built.
#[must_use]
pub fn hostile() -> Option<Rootfs> {
    let Some(path) = busybox_program() else {
        skipped("no busybox (package busybox-static)");
        return None;
    };
    let attacker = Path::new(env!("GAMUT_ATTACKER"));
    Some(busybox_rootfs(path).copy(attacker, "bin/attacker", 0o755))
}

/// As [`busybox`], with a program `/bin/probe` that does what the unikernel `probe` does. `None`,
/// said aloud, if there is no busybox.
#[must_use]
pub fn probe() -> Option<Vec<u8>> {
    let Some(path) = busybox_program() else {
        skipped("no busybox (package busybox-static)");
        return None;
    };
    let script = include_bytes!("probe.sh");
    Some(
        busybox_rootfs(path)
            .file("bin/probe", 0o755, script)
            .finish(),
    )
}

fn busybox_program() -> Option<&'static Path> {
    let paths = ["/usr/bin/busybox", "/bin/busybox"];
    paths.map(Path::new).into_iter().find(|path| path.is_file())
}

/// Directories, users and the shell with its applets: what other root filesystems build on.
fn busybox_rootfs(busybox: &Path) -> Rootfs {
    let list = std::process::Command::new(busybox)
        .arg("--list")
        .output()
        .expect("busybox runs");
    let applets = String::from_utf8_lossy(&list.stdout).into_owned();
    let mut rootfs = Rootfs::new();
    for path in ["bin", "etc", "root", "home", "var", "srv", "data"] {
        rootfs = rootfs.directory(path, 0o755, 0);
    }
    rootfs = rootfs
        .directory("tmp", 0o1777, 0)
        .directory("home/alice", 0o755, 1000)
        .directory("srv/site", 0o750, 1000)
        .file("srv/site/index.html", 0o644, b"<h1>from the image</h1>\n")
        .file("data/notes", 0o644, b"notes of the image\n")
        .file("etc/not-executable", 0o644, b"no program\n")
        .file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\n\
              alice:x:1000:1000::/home/alice:/bin/sh\n\
              bob:x:1001:1001::/:/bin/sh\n",
        )
        .file(
            "etc/group",
            0o644,
            b"root:x:0:\nalice:x:1000:\nbob:x:1001:\nstaff:x:50:alice\n",
        )
        .copy(busybox, "bin/busybox", 0o755);
    applets
        .lines()
        .filter(|applet| *applet != "busybox")
        .fold(rootfs, |rootfs, applet| {
            rootfs.link(&format!("bin/{applet}"), "busybox")
        })
}

/// An image `layered` in docker's format, of two layers: the tests' root filesystem with a
/// directory `/opaque`, and one that hides what is in `/data` and `/opaque` and puts `/opaque/new`
/// there.
///
/// # Panics
/// Without a static busybox: ask for [`busybox`] before.
#[must_use]
pub fn two_layers() -> Vec<u8> {
    let paths = ["/usr/bin/busybox", "/bin/busybox"];
    let path = paths.map(Path::new).into_iter().find(|path| path.is_file());
    let lower = busybox_rootfs(path.expect("there is a busybox"))
        .directory("opaque", 0o755, 0)
        .file("opaque/old", 0o644, b"old\n")
        .finish();
    let upper = Rootfs::new()
        .directory("data", 0o755, 0)
        .file("data/.wh.notes", 0o644, b"")
        .directory("opaque", 0o755, 0)
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/new", 0o644, b"new\n")
        .finish();
    let digest = |bytes: &[u8]| -> String {
        let hash = <sha2::Sha256 as sha2::Digest>::digest(bytes);
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let layers = [lower, upper];
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|layer| format!("sha256:{}", digest(layer)))
        .collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string();
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": ["layered:latest"],
        "Layers": ["0.tar", "1.tar"],
    }])
    .to_string();
    let mut archive = Rootfs::new();
    for (name, layer) in ["0.tar", "1.tar"].into_iter().zip(&layers) {
        archive = archive.file(name, 0o644, layer);
    }
    archive
        .file("config.json", 0o644, config.as_bytes())
        .file("manifest.json", 0o644, manifest.as_bytes())
        .finish()
}
