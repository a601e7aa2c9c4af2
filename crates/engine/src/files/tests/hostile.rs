//! What a container or an archive may try, to get at files outside.

use super::*;
use crate::files::archive::stat;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SECRET: &str = "not for containers";

/// A directory with `root` and, beside it, `outside/secret`.
fn stage() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let stage = tempfile::tempdir().unwrap();
    let (root, outside) = (stage.path().join("root"), stage.path().join("outside"));
    fs::create_dir(&root).unwrap();
    write(&outside.join("secret"), SECRET);
    (stage, root, outside)
}

#[test]
fn links_never_lead_out() {
    let (_stage, root, outside) = stage();
    symlink(&outside, root.join("absolute")).unwrap();
    symlink("../outside", root.join("relative")).unwrap();
    symlink("/proc/self/root", root.join("magic")).unwrap();
    symlink("/data", root.join("fine")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    fs::create_dir(root.join("data")).unwrap();
    let open_root = File::open(&root).unwrap();
    for link in ["absolute", "relative", "magic"] {
        assert!(packed(&root, &format!("/{link}/secret")).is_err());
        assert!(packed(&root, &format!("/{link}/")).is_err());
        assert!(stat(open_root.as_fd(), &format!("/{link}/secret")).is_err());
        let told = stat(open_root.as_fd(), &format!("/{link}")).unwrap();
        assert_eq!(told.mode & libc::S_IFMT, libc::S_IFLNK);
        // The link itself may be packed, and stays a link.
        assert_eq!(names(&packed(&root, &format!("/{link}")).unwrap()), [link]);
    }
    assert_eq!(
        stat(open_root.as_fd(), "/relative").unwrap().link_target,
        "/outside"
    );
    assert_eq!(
        stat(open_root.as_fd(), "/fine").unwrap().link_target,
        "/data"
    );
    assert!(stat(open_root.as_fd(), "/loop").is_err());

    // Parents of entries: inside the root, or an error.
    for link in ["absolute", "relative", "magic"] {
        let archive = archive(&[(file(&format!("{link}/secret")), "overwritten")]);
        put(&root, "/", &archive, Options::default()).unwrap_err();
    }
    let bytes = archive(&[
        (file("fine/through"), "inside"),
        (link("way", Kind::Symlink, outside.to_str().unwrap()), ""),
        (link("way/secret", Kind::HardLink, "fine/through"), ""),
    ]);
    put(&root, "/", &bytes, Options::default()).unwrap_err();
    assert_eq!(
        fs::read_to_string(root.join("data/through")).unwrap(),
        "inside"
    );
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), SECRET);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn names_of_entries_never_lead_out() {
    let (_stage, root, outside) = stage();
    for name in [
        "../outside/secret",
        "a/../../outside/secret",
        "..",
        "/../outside/secret",
    ] {
        let refused = put(
            &root,
            "/",
            &archive(&[(file(name), "x")]),
            Options::default(),
        );
        assert_eq!(
            refused.unwrap_err().kind(),
            ErrorKind::InvalidArgument,
            "{name}"
        );
    }
    let theft = archive(&[(link("mine", Kind::HardLink, "../outside/secret"), "")]);
    put(&root, "/", &theft, Options::default()).unwrap_err();
    symlink(&outside, root.join("out")).unwrap();
    let theft = archive(&[(link("mine", Kind::HardLink, "out/secret"), "")]);
    put(&root, "/", &theft, Options::default()).unwrap_err();
    // Replaced, not followed.
    symlink(outside.join("secret"), root.join("target")).unwrap();
    put(
        &root,
        "/",
        &archive(&[(file("target"), "new")]),
        Options::default(),
    )
    .unwrap();
    assert_eq!(fs::read_to_string(root.join("target")).unwrap(), "new");
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), SECRET);
    // Cleaned as text.
    put(
        &root,
        "/",
        &archive(&[(file("/a/./b/../c"), "c")]),
        Options::default(),
    )
    .unwrap();
    assert_eq!(fs::read_to_string(root.join("a/c")).unwrap(), "c");
}

#[test]
fn pipes_and_sockets_do_not_block() {
    let (_stage, root, _) = stage();
    let pipe = std::ffi::CString::new("pipe").unwrap();
    let open_root = File::open(&root).unwrap();
    gamut_image::layer::sys::mknod(open_root.as_fd(), &pipe, libc::S_IFIFO | 0o600, (0, 0))
        .unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    assert_eq!(names(&packed(&root, "/").unwrap()), ["/", "/pipe"]);
    // A pipe is replaced, not written into.
    put(
        &root,
        "/",
        &archive(&[(file("pipe"), "file now")]),
        Options::default(),
    )
    .unwrap();
    assert_eq!(fs::read_to_string(root.join("pipe")).unwrap(), "file now");
}

#[test]
fn deep_trees_do_not_use_up_descriptors() {
    let (_stage, root, _) = stage();
    let path = format!("/{}", "d/".repeat(1500));
    let bytes = archive(&[(file(&format!("{path}end")), "deep")]);
    put(&root, "/", &bytes, Options::default()).unwrap();
    assert_eq!(names(&packed(&root, "/d").unwrap()).len(), 1501);
    // Longer than any system call takes.
    let bytes = archive(&[(file(&format!("{}end", "d/".repeat(4000))), "deeper")]);
    let refused = put(&root, "/", &bytes, Options::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

/// CVE-2018-15664: a process in the container exchanges a directory and a link all the time.
#[test]
fn swapping_a_directory_for_a_link_gains_nothing() {
    let (_stage, root, outside) = stage();
    write(&root.join("place/secret"), "the container's own");
    symlink(&outside, root.join("swap")).unwrap();
    let stop = AtomicBool::new(false);
    let exchange = |open_root: &File| {
        use std::os::fd::AsRawFd;
        // SAFETY: both names are valid for the call.
        unsafe {
            libc::renameat2(
                open_root.as_raw_fd(),
                c"place".as_ptr(),
                open_root.as_raw_fd(),
                c"swap".as_ptr(),
                libc::RENAME_EXCHANGE,
            )
        }
    };
    let (mut read, mut written, mut refused) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let open_root = File::open(&root).unwrap();
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(exchange(&open_root), 0);
            }
        });
        let end = Instant::now() + Duration::from_secs(2);
        let bytes = archive(&[
            (Entry::new("place", Kind::Directory, 0o711), ""),
            (file("place/new"), "from the client"),
            (Entry::new("place/pipe", Kind::Fifo, 0o640), ""),
            (file("place/secret"), "the container's own"),
        ]);
        while Instant::now() < end {
            for path in ["/place/secret", "/place/", "/place/.", "/"] {
                match packed(&root, path) {
                    Ok(archive) => {
                        let found = archive
                            .windows(SECRET.len())
                            .any(|at| at == SECRET.as_bytes());
                        assert!(!found, "the secret got out through {path}");
                        read += 1;
                    }
                    Err(_) => refused += 1,
                }
            }
            for base in ["/", "/place"] {
                // Keeps the kinds, so that the link stays.
                match put(
                    &root,
                    base,
                    &bytes,
                    Options {
                        keep_kind: true,
                        owner: None,
                    },
                ) {
                    Ok(()) => written += 1,
                    Err(_) => refused += 1,
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("read {read}, written {written}, refused {refused}");
    assert!(read > 0 && written > 0 && refused > 0);
    let left: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|each| each.unwrap().file_name())
        .collect();
    assert_eq!(left, ["secret"]);
    assert_eq!(fs::read_to_string(outside.join("secret")).unwrap(), SECRET);
    assert_ne!(fs::metadata(&outside).unwrap().mode() & 0o7777, 0o711);
}
