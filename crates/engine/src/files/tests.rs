//! Trees in temporary directories stand for layers and roots.

mod changes;
mod hostile;
mod merge;
mod views;

use super::extract::{Options, extract};
use super::pack::pack;
use super::path::{Asked, clean};
use crate::error::Result;
use gamut_image::tar::{Entry, Kind, Limits, Reader, Writer};
use gamut_spec::error::ErrorKind;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Whether devices, owners and mounts can be made here.
fn is_root() -> bool {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        println!("SKIPPED: needs root");
    }
    is_root
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let file = File::open(path).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    gamut_image::layer::sys::fset_xattr(file.as_fd(), &name, value).unwrap();
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let file = File::open(path).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    gamut_image::layer::sys::fget_xattr(file.as_fd(), &name).unwrap()
}

fn packed(root: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut archive = Vec::new();
    pack(File::open(root)?.as_fd(), &Asked::parse(path), &mut archive)?;
    Ok(archive)
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut reader = Reader::new(archive, Limits::default());
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    names
}

fn put(root: &Path, base: &str, archive: &[u8], options: Options) -> Result<()> {
    let root = File::open(root).unwrap();
    extract(
        root.as_fd(),
        &clean(base.as_bytes()),
        &mut &archive[..],
        options,
    )
}

fn archive(entries: &[(Entry, &str)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, content.as_bytes()).unwrap();
    }
    writer.finish().unwrap()
}

fn file(path: &str) -> Entry {
    Entry::new(path, Kind::File, 0o644)
}

fn link(path: &str, kind: Kind, target: &str) -> Entry {
    let mut entry = Entry::new(path, kind, 0o777);
    entry.link = target.as_bytes().to_vec();
    entry
}

#[test]
fn asked_paths_are_cleaned_as_docker_does() {
    for (text, path, directory, name) in [
        ("/", "", true, "/"),
        ("", "", true, "/"),
        (".", "", true, "."),
        ("/.", "", true, "."),
        ("etc", "etc", false, "etc"),
        ("/etc/", "etc", true, "etc"),
        ("/etc/.", "etc", true, "."),
        ("/a/../b//c", "b/c", false, "c"),
        ("../../..", "", true, "/"),
    ] {
        let asked = Asked::parse(text);
        let found = (&asked.path[..], asked.directory, asked.name.as_str());
        assert_eq!(found, (path.as_bytes(), directory, name), "{text}");
    }
}

#[test]
fn names_of_an_archive_follow_the_path() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("etc/passwd"), "x");
    symlink("/etc", root.path().join("conf")).unwrap();
    let names = |path: &str| names(&packed(root.path(), path).unwrap());
    assert_eq!(names("/etc"), ["etc/", "etc/passwd"]);
    assert_eq!(names("/etc/"), ["etc/", "etc/passwd"]);
    assert_eq!(names("/etc/."), ["./", "./passwd"]);
    assert_eq!(names("/etc/passwd"), ["passwd"]);
    assert_eq!(names("/"), ["/", "/conf", "/etc/", "/etc/passwd"]);
    assert_eq!(names("/conf"), ["conf"]);
    assert_eq!(names("/conf/"), ["conf/", "conf/passwd"]);
    assert_eq!(names("/conf/passwd"), ["passwd"]);
    let missing = packed(root.path(), "/etc/passwd/").unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOTDIR));
}

#[test]
fn what_goes_out_comes_in_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let data = from.path().join("data");
    write(&data.join("deep/er/file"), "content");
    write(&data.join("first"), "linked");
    fs::hard_link(data.join("first"), data.join("deep/second")).unwrap();
    symlink("../nowhere", data.join("dangling")).unwrap();
    fs::set_permissions(data.join("first"), PermissionsExt::from_mode(0o4755)).unwrap();
    set_xattr(&data.join("deep"), "user.colour", b"blue");
    let sparse = File::create(data.join("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"end", (1 << 20) - 3).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789);
    File::open(data.join("deep"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    let is_root = is_root();
    if is_root {
        std::os::unix::fs::chown(data.join("deep/er/file"), Some(123), Some(456)).unwrap();
    }

    let packed = packed(from.path(), "/data").unwrap();
    write(&to.path().join("srv/data/deep/kept"), "kept");
    put(to.path(), "/srv", &packed, Options::default()).unwrap();

    let came = to.path().join("srv/data");
    assert_eq!(
        fs::read_to_string(came.join("deep/er/file")).unwrap(),
        "content"
    );
    assert_eq!(fs::read_to_string(came.join("deep/kept")).unwrap(), "kept");
    assert_eq!(
        fs::read_link(came.join("dangling")).unwrap(),
        Path::new("../nowhere")
    );
    let first = fs::metadata(came.join("first")).unwrap();
    assert_eq!(first.mode() & 0o7777, 0o4755);
    assert_eq!(
        first.ino(),
        fs::metadata(came.join("deep/second")).unwrap().ino()
    );
    assert_eq!(xattr(&came.join("deep"), "user.colour").unwrap(), b"blue");
    assert_eq!(
        fs::metadata(came.join("deep")).unwrap().modified().unwrap(),
        old
    );
    assert_eq!(
        fs::read(came.join("sparse")).unwrap(),
        fs::read(data.join("sparse")).unwrap()
    );
    if is_root {
        let file = fs::metadata(came.join("deep/er/file")).unwrap();
        assert_eq!((file.uid(), file.gid()), (123, 456));
    }
}

#[test]
fn a_compressed_archive_is_unpacked_for_an_owner() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let plain = archive(&[(file("new/file"), "text")]);
    let mut gzip = std::process::Command::new("gzip");
    let Ok(mut child) = gzip
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
    else {
        println!("SKIPPED: needs gzip");
        return;
    };
    child.stdin.take().unwrap().write_all(&plain).unwrap();
    let mut packed = Vec::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_end(&mut packed)
        .unwrap();
    child.wait().unwrap();
    let options = Options {
        owner: Some((7, 8)),
        ..Options::default()
    };
    put(root.path(), "/", &packed, options).unwrap();
    for path in ["new", "new/file"] {
        let made = fs::metadata(root.path().join(path)).unwrap();
        assert_eq!((made.uid(), made.gid()), (7, 8), "{path}");
    }
    assert_eq!(
        fs::metadata(root.path().join("new")).unwrap().mode() & 0o7777,
        0o755
    );
}

#[test]
fn kinds_are_kept_or_replaced_as_asked() {
    let root = tempfile::tempdir().unwrap();
    write(&root.path().join("directory/inside"), "x");
    write(&root.path().join("file"), "old");
    let over_directory = archive(&[(file("directory"), "new")]);
    let over_file = archive(&[(Entry::new("file", Kind::Directory, 0o700), "")]);
    let keep = Options {
        keep_kind: true,
        owner: None,
    };
    for (bytes, text) in [
        (
            &over_directory,
            "cannot overwrite directory \"/directory\" with non-directory",
        ),
        (
            &over_file,
            "cannot overwrite non-directory \"/file\" with directory",
        ),
    ] {
        let refused = put(root.path(), "/", bytes, keep).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert!(
            refused.full_message().contains(text),
            "{}",
            refused.full_message()
        );
    }
    assert_eq!(fs::read_to_string(root.path().join("file")).unwrap(), "old");
    put(root.path(), "/", &over_directory, Options::default()).unwrap();
    put(root.path(), "/", &over_file, Options::default()).unwrap();
    assert_eq!(
        fs::read_to_string(root.path().join("directory")).unwrap(),
        "new"
    );
    assert!(root.path().join("file").is_dir());
}

#[test]
fn bad_archives_are_the_clients_fault() {
    let root = tempfile::tempdir().unwrap();
    let good = archive(&[(file("a"), &"x".repeat(5000))]);
    let mut damaged = good.clone();
    damaged[150] ^= 1;
    for bytes in [&good[..2000], &damaged, b"BZh91AY", &b"z".repeat(2000)] {
        let refused = put(root.path(), "/", bytes, Options::default()).unwrap_err();
        assert_eq!(
            refused.kind(),
            ErrorKind::InvalidArgument,
            "{}",
            refused.full_message()
        );
    }
}
