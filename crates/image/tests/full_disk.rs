//! A disk that is full: nothing is left behind, and the store works on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;
use gamut_image::{ImageStore, ImportOptions, NoProgress, PruneFilter};
use gamut_spec::error::ErrorKind;
use std::ffi::CString;

/// Mounts a tmpfs of `size_kib` on `path` in a mount namespace of this thread's own.
fn mount_small_disk(path: &std::path::Path, size_kib: u32) -> std::io::Result<()> {
    let check = |result: i32| {
        if result == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    let target = CString::new(path.to_str().unwrap()).unwrap();
    let options = CString::new(format!("size={size_kib}k")).unwrap();
    let (root, tmpfs) = (c"/", c"tmpfs");
    // SAFETY: unshare changes this thread only; it takes no memory. CLONE_FS comes with NEWNS.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // SAFETY: all pointers are NUL-terminated strings or null where mount(2) allows it.
    check(unsafe {
        libc::mount(
            std::ptr::null(),
            root.as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        )
    })?;
    // SAFETY: as above; `options` outlives the call.
    check(unsafe {
        libc::mount(
            tmpfs.as_ptr(),
            target.as_ptr(),
            tmpfs.as_ptr(),
            0,
            options.as_ptr().cast(),
        )
    })
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    // Threads that this one starts inherit its namespace; the mount ends with them.
    std::thread::spawn(move || {
        if let Err(error) = mount_small_disk(&path, 3000) {
            println!("SKIPPED: cannot mount a tmpfs in a namespace of its own: {error}");
            return;
        }
        let store = ImageStore::open(&path.join("images")).unwrap();
        let small = TestImage::new(vec![tar(&[("a", &noise(1, 400_000))])]);
        store
            .load(&small.docker_archive(&["small:1"])[..], &NoProgress)
            .unwrap();
        for length in [1_200_000, 2_500_000, 6_000_000] {
            let layer = tar(&[("a", &noise(1, length))]);
            let large = TestImage::new(vec![layer.clone()]);
            // A layer that comes plain is stored once, one that comes compressed as it came, too.
            let plain = large.docker_archive(&["large:1"]);
            let fits_once = length < 2_000_000;
            if fits_once {
                store.load(&plain[..], &NoProgress).unwrap();
                store.remove("large:1", false, &|_| false).unwrap();
                store
                    .import(&layer[..], None, &ImportOptions::default())
                    .unwrap();
                store
                    .prune(false, &|_| false, &PruneFilter::default())
                    .unwrap();
                assert_clean(&store);
            }
            let compressed = large.oci_archive("x/large:1", &gzip);
            for archive in [compressed, plain]
                .iter()
                .take(if fits_once { 1 } else { 2 })
            {
                let error = store.load(&archive[..], &NoProgress).unwrap_err();
                assert!(
                    error.is_disk_full(),
                    "{length}: {}",
                    gamut_spec::error::chain(&error)
                );
                assert_eq!(error.kind(), ErrorKind::Unavailable);
                assert_clean(&store);
            }
            let layer = if fits_once { gzip(&layer) } else { layer };
            let error = store
                .import(&layer[..], None, &ImportOptions::default())
                .unwrap_err();
            assert!(error.is_disk_full(), "{}", gamut_spec::error::chain(&error));
            assert_clean(&store);
        }
        assert_eq!(store.list().unwrap().len(), 1);
        store.remove("small:1", false, &|_| false).unwrap();
        assert_empty(&store);
    })
    .join()
    .unwrap();
}
