//! Extraction for real, as root, into temporary directories.

mod overlay;
mod removal;

use super::*;
use crate::tar::{Entry, Kind, Timestamp, Writer};
use proptest::prelude::*;
use std::ffi::CStr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::process::Command;

struct Layer(Writer<Vec<u8>>);

impl Layer {
    fn new() -> Self {
        Self(Writer::new(Vec::new()))
    }

    fn entry(mut self, entry: &Entry, content: &[u8]) -> Self {
        self.0.append(entry, content).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(&Entry::new(path, Kind::File, 0o644), content.as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        self.entry(&Entry::new(path, Kind::Directory, 0o755), &[])
    }

    fn link(self, kind: Kind, path: &str, link: &str) -> Self {
        let mut entry = Entry::new(path, kind, 0o777);
        entry.link = link.into();
        self.entry(&entry, &[])
    }

    fn symlink(self, path: &str, link: &str) -> Self {
        self.link(Kind::Symlink, path, link)
    }

    fn hard_link(self, path: &str, link: &str) -> Self {
        self.link(Kind::HardLink, path, link)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.finish().unwrap()
    }
}

/// A place to extract into, with a sentinel beside it that nothing may change.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/sentinel"), "untouched").unwrap();
        Self(dir)
    }

    fn target(&self) -> PathBuf {
        self.0.path().join("layer")
    }

    fn extract_with(&self, archive: &[u8], options: &ExtractOptions) -> Result<Extracted, Error> {
        let result = extract(archive, &self.target(), options);
        let mut names: Vec<_> = std::fs::read_dir(self.0.path().join("outside"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.pop().unwrap(), "sentinel");
        assert!(names.is_empty());
        let sentinel = self.0.path().join("outside/sentinel");
        assert_eq!(std::fs::read(&sentinel).unwrap(), b"untouched");
        assert_eq!(sentinel.metadata().unwrap().nlink(), 1);
        assert_eq!(
            self.target().exists(),
            result.is_ok(),
            "a refused layer leaves nothing"
        );
        result
    }

    fn extract(&self, layer: Layer) -> Result<Extracted, Error> {
        self.extract_with(&layer.bytes(), &ExtractOptions::default())
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.target().join(path)).unwrap()
    }

    fn xattr(&self, path: &str, name: &CStr) -> Option<Vec<u8>> {
        let file = std::fs::File::open(self.target().join(path)).unwrap();
        sys::fget_xattr(file.as_fd(), name).unwrap()
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let metadata = self.target().join(path).symlink_metadata().unwrap();
        metadata.file_type().is_char_device() && metadata.rdev() == 0
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    format!("{error}{}", source.unwrap_or_default())
}

#[test]
fn all_metadata_is_kept() {
    let place = Place::new();
    let mtime = Timestamp {
        seconds: 1_234_567_890,
        nanoseconds: 123_456_789,
    };
    let entry = |path: &str, kind, mode| {
        let mut entry = Entry::new(path, kind, mode);
        (entry.uid, entry.gid, entry.mtime) = (3_000_000_000, 70_000, mtime);
        entry
    };
    let mut capable = entry("d/capable", Kind::File, 0o6755);
    // Version 2, effective, CAP_NET_RAW.
    let mut capability = vec![1, 0, 0, 2, 0, 0x20];
    capability.resize(20, 0);
    capable.xattrs = vec![
        (b"security.capability".to_vec(), capability.clone()),
        (b"security.selinux".to_vec(), b"label".to_vec()),
        (b"trusted.overlay.opaque".to_vec(), b"y".to_vec()),
        (b"user.overlay.redirect".to_vec(), b"/etc".to_vec()),
        (b"user.note".to_vec(), b"kept\0".to_vec()),
    ];
    let mut link = entry("d/link", Kind::Symlink, 0o777);
    link.link = b"/nowhere".to_vec();
    let mut device = entry("d/null", Kind::CharacterDevice, 0o666);
    device.device = (1, 3);
    let mut block = entry("d/disk", Kind::BlockDevice, 0o660);
    block.device = (259, 300);
    let layer = Layer::new()
        .entry(&entry("./", Kind::Directory, 0o750), &[])
        .entry(&entry("d/", Kind::Directory, 0o3771), &[])
        .entry(&capable, b"content")
        .entry(&link, &[])
        .entry(&device, &[])
        .entry(&block, &[])
        .entry(&entry("d/pipe", Kind::Fifo, 0o600), &[])
        .hard_link("d/second", "d/capable")
        .hard_link("d/link2", "./d/link");
    let extracted = place.extract(layer).unwrap();
    assert_eq!((extracted.bytes, extracted.entries), (7, 9));
    assert!(extracted.implied_directories.is_empty());
    assert_eq!(extracted.skipped.len(), 3, "{:?}", extracted.skipped);
    for (path, mode) in [
        ("", 0o040_750),
        ("d", 0o043_771),
        ("d/capable", 0o106_755),
        ("d/link", 0o120_777),
        ("d/null", 0o020_666),
        ("d/disk", 0o060_660),
        ("d/pipe", 0o010_600),
    ] {
        let metadata = place.target().join(path).symlink_metadata().unwrap();
        assert_eq!(metadata.mode(), mode, "{path}: {:o}", metadata.mode());
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            (3_000_000_000, 70_000),
            "{path}"
        );
        assert_eq!(
            (metadata.mtime(), metadata.mtime_nsec()),
            (1_234_567_890, 123_456_789),
            "{path}"
        );
    }
    let rdev = |path: &str| place.target().join(path).metadata().unwrap().rdev();
    assert_eq!(rdev("d/null"), libc::makedev(1, 3));
    assert_eq!(rdev("d/disk"), libc::makedev(259, 300));
    assert_eq!(
        place.xattr("d/capable", c"security.capability"),
        Some(capability)
    );
    assert_eq!(
        place.xattr("d/capable", c"user.note"),
        Some(b"kept\0".to_vec())
    );
    for name in [
        c"trusted.overlay.opaque",
        c"user.overlay.redirect",
        c"security.selinux",
    ] {
        assert_eq!(place.xattr("d/capable", name), None);
    }
    let ino = |path: &str| place.target().join(path).symlink_metadata().unwrap().ino();
    assert_eq!(ino("d/capable"), ino("d/second"));
    assert_eq!(ino("d/link"), ino("d/link2"));
}

#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    let long_loop = (0..50).fold(Layer::new(), |layer, at| {
        layer.symlink(&format!("l{at}"), &format!("l{}", at + 1))
    });
    let unknown = Entry::new("x", Kind::Other(b'Z'), 0o644);
    let cases: Vec<(&str, Layer)> = vec![
        ("..", Layer::new().file("../outside/x", "")),
        ("..", Layer::new().file("a/../../outside/x", "")),
        ("..", Layer::new().directory("..")),
        (
            "..",
            Layer::new()
                .file("a", "")
                .hard_link("b", "../outside/sentinel"),
        ),
        (
            "does not have",
            Layer::new().hard_link("b", "/outside/sentinel"),
        ),
        (
            "does not have",
            Layer::new()
                .symlink("o", "../outside")
                .hard_link("b", "o/sentinel"),
        ),
        ("does not have", Layer::new().hard_link("b", "b")),
        (
            "does not have",
            Layer::new().file(".wh.a", "").hard_link("b", "a"),
        ),
        (
            "link to a directory",
            Layer::new().directory("d").hard_link("b", "d"),
        ),
        (
            "not a directory",
            Layer::new().file("a", "").file("a/b", ""),
        ),
        (
            "not a directory",
            Layer::new()
                .entry(&Entry::new("p", Kind::Fifo, 0o644), &[])
                .file("p/b", ""),
        ),
        (
            "loop",
            Layer::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", ""),
        ),
        ("loop", long_loop.file("l0/x", "")),
        ("must be a directory", Layer::new().file("./", "")),
        ("must be a directory", Layer::new().symlink("/", "/etc")),
        ("whiteout of no name", Layer::new().file("a/.wh..", "")),
        ("whiteout of no name", Layer::new().file("a/.wh.", "")),
        ("whiteout of no name", Layer::new().file(".wh...", "")),
        ("parents is a whiteout", Layer::new().file(".wh.a/b", "")),
        ("link to nothing", Layer::new().symlink("a", "")),
        ("unknown kind", Layer::new().entry(&unknown, &[])),
        (
            "File name too long",
            Layer::new().file(&"n".repeat(300), ""),
        ),
    ];
    for (expected, layer) in cases {
        // What was made before the refusal must go too.
        let archive = [
            &Layer::new().file("first/file", "x").bytes()[..2048 - 1024],
            &layer.bytes(),
        ]
        .concat();
        let error = Place::new()
            .extract_with(&archive, &ExtractOptions::default())
            .unwrap_err();
        assert!(
            chain(&error).contains(expected),
            "{expected}: {}",
            chain(&error)
        );
    }
}

#[test]
fn links_out_are_followed_inside_only() {
    let place = Place::new();
    let layer = Layer::new()
        .symlink("up", "../../../../outside")
        .file("up/sentinel", "inside")
        .symlink("absolute", "/outside")
        .file("absolute/second", "inside")
        .symlink("file", "../outside/sentinel")
        .file("file", "replaced the link")
        .symlink("magic", "/proc/self/root")
        .file("magic/x", "inside")
        .file("/leading/slash", "inside")
        .file("//./a//b/./c", "inside");
    let extracted = place.extract(layer).unwrap();
    assert_eq!(place.read("outside/sentinel"), "inside");
    assert_eq!(place.read("outside/second"), "inside");
    assert_eq!(place.read("file"), "replaced the link");
    assert_eq!(
        place.read("proc/self/root/x").len() + place.read("leading/slash").len(),
        12
    );
    assert_eq!(place.read("a/b/c"), "inside");
    assert!(
        extracted
            .implied_directories
            .contains(&PathBuf::from("outside"))
    );
    assert!(!extracted.implied_directories.contains(&PathBuf::from("up")));
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    let layer = Layer::new()
        .directory("usr/lib")
        .symlink("lib", "usr/lib")
        .file("lib/x", "through the link")
        .file("a", "one")
        .hard_link("b", "a")
        .file("a", "two")
        .directory("d")
        .file("d/inner", "1")
        .directory("d")
        .file("d/second", "2")
        .directory("e/f/g")
        .file("e/f/g/h", "x")
        .file("e/f", "now a file")
        .file("s", "x")
        .symlink("s", "a")
        .directory("t")
        .symlink("u", "t")
        .directory("u")
        .file("u/own", "x");
    let extracted = place.extract(layer).unwrap();
    assert_eq!(place.read("usr/lib/x"), "through the link");
    assert_eq!(
        (place.read("a"), place.read("b")),
        ("two".into(), "one".into())
    );
    assert_eq!(place.read("d/inner") + &place.read("d/second"), "12");
    assert_eq!(place.read("e/f"), "now a file");
    assert_eq!(place.read("s"), "two");
    assert!(!place.target().join("t/own").exists() && place.target().join("u/own").exists());
    let implied: Vec<_> = ["", "e", "usr"].map(PathBuf::from).into();
    assert_eq!(extracted.implied_directories, implied);
}

#[test]
fn limits_and_damage_leave_nothing() {
    let archive = Layer::new()
        .file("a", &"x".repeat(1000))
        .file("b", &"y".repeat(1000))
        .bytes();
    let limited = |change: fn(&mut Limits), expected: &str| {
        let mut options = ExtractOptions::default();
        change(&mut options.limits);
        let error = Place::new().extract_with(&archive, &options).unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));
    };
    limited(|limits| limits.max_bytes = 1999, "max_bytes is 1999");
    limited(
        |limits| limits.max_file_bytes = 999,
        "max_file_bytes is 999",
    );
    limited(
        |limits| limits.max_archive_bytes = 4000,
        "max_archive_bytes is 4000",
    );
    limited(|limits| limits.archive.max_entries = 1, "max_entries is 1");
    for length in [1, 511, 512, 700, 1511, 1537, 2100] {
        let error = Place::new().extract_with(&archive[..length], &ExtractOptions::default());
        assert!(chain(&error.unwrap_err()).contains("cut short"), "{length}");
    }
    struct Cut<'a>(&'a [u8]);
    impl Read for Cut<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            self.0.read(to)
        }
    }
    let place = Place::new();
    let error = extract(
        Cut(&archive[..1700]),
        &place.target(),
        &ExtractOptions::default(),
    );
    assert!(matches!(error.unwrap_err(), Error::Read(_)));
    assert!(!place.target().exists());
    // A target with something in it is not ours.
    let error = extract(
        &archive[..],
        &place.0.path().join("outside"),
        &ExtractOptions::default(),
    );
    assert!(matches!(error.unwrap_err(), Error::TargetNotEmpty { .. }));
    assert!(place.0.path().join("outside/sentinel").exists());
}

#[test]
fn sparse_files_stay_sparse_and_deep_paths_work() {
    let place = Place::new();
    let deep: String = (0..40).map(|at| format!("{at:0>199}/")).collect();
    let source = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(source.path().join("sparse")).unwrap();
    file.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", 512 << 20).unwrap();
    let output = Command::new("tar")
        .args(["-cS", "--format=posix", "-C"])
        .arg(source.path())
        .arg("sparse")
        .output();
    let mut archive = Layer::new().file(&format!("{deep}file"), "deep").bytes();
    archive.truncate(archive.len() - 1024);
    match output {
        Ok(output) if output.status.success() => archive.extend(output.stdout),
        _ => println!("SKIPPED: no tar program to make a sparse archive with"),
    }
    let extracted = place
        .extract_with(&archive, &ExtractOptions::default())
        .unwrap();
    assert_eq!(extracted.implied_directories.len(), 41);
    let root = std::fs::File::open(place.target()).unwrap();
    let directory =
        sys::open_directory(root.as_fd(), deep.trim_end_matches('/').as_bytes()).unwrap();
    assert_eq!(sys::lstat(directory.as_fd(), c"file").unwrap().st_size, 4);
    if let Ok(sparse) = place.target().join("sparse").metadata() {
        assert_eq!(sparse.len(), 1 << 30);
        assert!(sparse.blocks() < 2048, "{} blocks", sparse.blocks());
        let extracted = extracted.bytes;
        assert!(extracted < 1 << 20, "{extracted}");
    }
    remove_tree(&place.target()).unwrap();
    assert!(!place.target().exists());
}

fn hostile_entry() -> impl Strategy<Value = Entry> {
    let part = proptest::sample::select(vec![
        "a",
        "b",
        "c",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh.b",
        ".wh..wh..opq",
        ".wh..wh.x",
        "outside",
    ]);
    let path = proptest::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"));
    let kind = proptest::sample::select(vec![
        Kind::File,
        Kind::Directory,
        Kind::Symlink,
        Kind::HardLink,
        Kind::Fifo,
        Kind::CharacterDevice,
    ]);
    (path.clone(), kind, path, 0u32..0o10000).prop_map(|(path, kind, link, mode)| {
        // Mostly without `..`, which ends the extraction at once; links keep theirs.
        let path = if path.len() % 3 > 0 {
            path.replace("..", "a")
        } else {
            path
        };
        let mut entry = Entry::new(path, kind, mode);
        entry.link = match mode % 3 {
            0 => format!("../{link}"),
            1 => format!("/{link}"),
            _ => link,
        }
        .into_bytes();
        entry.uid = mode;
        entry
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_ever_written_outside(
        entries in proptest::collection::vec(hostile_entry(), 1..25),
        xattr in any::<bool>(),
    ) {
        let layer = entries.iter().fold(Layer::new(), |layer, entry| layer.entry(entry, &[]));
        let whiteouts = if xattr { Whiteouts::Xattr } else { Whiteouts::Device };
        let options = ExtractOptions { whiteouts, ..ExtractOptions::default() };
        let place = Place::new();
        if let Ok(extracted) = place.extract_with(&layer.bytes(), &options) {
            let target = place.target();
            for implied in &extracted.implied_directories {
                prop_assert!(target.join(implied).symlink_metadata().unwrap().is_dir());
            }
            adopt_implied_directories(&target, &extracted.implied_directories, &[place.0.path().join("outside")]).unwrap();
            remove_tree(&target).unwrap();
        }
        prop_assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 1);
    }
}
