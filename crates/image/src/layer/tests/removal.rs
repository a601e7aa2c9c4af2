//! Removal of hostile trees.

use super::*;

#[test]
fn trees_are_removed_whatever_is_in_them() {
    let place = Place::new();
    let tree = place.target();
    std::fs::create_dir(&tree).unwrap();
    // Deeper than PATH_MAX and than the directories held open.
    let mut current = std::os::fd::OwnedFd::from(std::fs::File::open(&tree).unwrap());
    for _ in 0..3000 {
        sys::mkdir(current.as_fd(), c"dd", 0).unwrap();
        sys::create_file(current.as_fd(), c"file").unwrap();
        current = sys::openat2(current.as_fd(), c"dd", sys::DIRECTORY, sys::BENEATH).unwrap();
    }
    std::fs::create_dir(tree.join(".removing-1")).unwrap();
    std::fs::write(tree.join(".removing-2"), "").unwrap();
    symlink("../outside", tree.join("link")).unwrap();
    remove_tree(&tree).unwrap();
    assert!(!tree.exists() && place.0.path().join("outside/sentinel").exists());
    remove_tree(&tree).unwrap();
    symlink("outside", &tree).unwrap();
    remove_tree(&tree).unwrap();
    assert!(place.0.path().join("outside/sentinel").exists());
    assert!(remove_tree(Path::new("/")).is_err());
}

#[test]
fn an_ordinary_user_removes_directories_without_permissions() {
    let place = Place::new();
    std::fs::set_permissions(place.0.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let tree = sys::c_string(place.target().as_os_str().as_encoded_bytes()).unwrap();
    let target = place.target();
    // SAFETY: the child makes system calls and allocates, in a process whose other threads do
    // not hold the allocator's lock across a fork (glibc sees to that), and ends by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let done = || -> io::Result<()> {
            // SAFETY: takes no pointer.
            if unsafe { libc::setresuid(65534, 65534, 65534) } != 0 {
                return Err(io::Error::last_os_error());
            }
            std::fs::create_dir_all(target.join("a/b/c"))?;
            std::fs::write(target.join("a/b/c/file"), "")?;
            for path in ["a/b/c", "a/b", "a"] {
                std::fs::set_permissions(target.join(path), PermissionsExt::from_mode(0o0))?;
            }
            remove_tree(&target)
        };
        // SAFETY: ends the child only.
        unsafe { libc::_exit(i32::from(done().is_err())) };
    }
    let mut status = 0;
    // SAFETY: waits for our child, status is valid.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "{tree:?}");
    assert!(!place.target().exists());
}

#[test]
fn mounts_are_not_crossed() {
    let place = Place::new();
    std::fs::create_dir_all(place.target().join("a/b")).unwrap();
    // Runs this very test again inside the namespace, where it finds the mount.
    if std::env::var_os("GAMUT_TEST_MOUNTED").is_none() {
        let test = std::env::current_exe().unwrap();
        let script = format!(
            "GAMUT_TEST_MOUNTED={} exec {} --exact layer::tests::removal::mounts_are_not_crossed",
            place.0.path().display(),
            test.display()
        );
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert!(place.0.path().join("outside/sentinel").exists());
        return;
    }
    let base = PathBuf::from(std::env::var_os("GAMUT_TEST_MOUNTED").unwrap());
    let status = Command::new("mount")
        .arg("--bind")
        .arg(base.join("outside"))
        .arg(base.join("layer/a/b"))
        .status()
        .unwrap();
    assert!(status.success());
    let error = remove_tree(&base.join("layer")).unwrap_err();
    assert!(
        matches!(
            error.kind(),
            io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices
        ),
        "{error}"
    );
    assert!(base.join("outside/sentinel").exists());
}
