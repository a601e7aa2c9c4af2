//! The namespaces that a daemon under test lives in.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::JoinHandle;

/// A network namespace (loopback up) and a mount namespace, which live as long as this does.
#[derive(Debug)]
pub struct Namespaces {
    net: File,
    mnt: File,
}

impl Namespaces {
    /// Makes them.
    ///
    /// # Errors
    /// If the kernel refuses (not root).
    pub fn new() -> io::Result<Self> {
        let maker = std::thread::spawn(|| {
            // SAFETY: unshare(2) takes no pointers and changes this thread only.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) })?;
            // Nothing of the machine's comes in or goes out; but inside, mounts are shared as on
            // machines with systemd: what a container lets out is seen as a leak.
            for propagation in [libc::MS_PRIVATE, libc::MS_SHARED] {
                set_propagation(propagation)?;
            }
            let up = Command::new("ip")
                .args(["link", "set", "lo", "up"])
                .status()?;
            if !up.success() {
                return Err(io::Error::other("ip link set lo up failed"));
            }
            Ok(Self {
                net: File::open("/proc/thread-self/ns/net")?,
                mnt: File::open("/proc/thread-self/ns/mnt")?,
            })
        });
        maker.join().expect("no panic in it")
    }

    /// Puts `/dev/null` over a file, for whoever lives in the mount namespace.
    ///
    /// # Panics
    /// If that cannot be done.
    pub fn hide(&self, path: &str) {
        let mut mount = Command::new("mount");
        let done = self
            .apply(mount.args(["--bind", "/dev/null", path]))
            .status();
        assert!(done.expect("mount runs").success(), "{path} is hidden");
    }

    /// Makes a command run inside.
    pub fn apply<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let (net, mnt) = (self.net.as_raw_fd(), self.mnt.as_raw_fd());
        let here = std::env::current_dir().expect("there is a working directory");
        command.current_dir(here);
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe; the
        // descriptors are open in the child because they are in the parent, which waits for exec.
        unsafe { command.pre_exec(move || enter(net).and_then(|()| enter(mnt))) }
    }

    /// Runs something on a thread in the network namespace and returns its result.
    ///
    /// # Panics
    /// If it panics.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let net = self.net.as_raw_fd();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                enter(net).expect("the namespace can be entered");
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread in the network namespace.
    pub fn spawn_inside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let net = self.net.try_clone().expect("a descriptor is free");
        std::thread::spawn(move || {
            enter(net.as_raw_fd()).expect("the namespace can be entered");
            work()
        })
    }

    /// What `/proc/PID/ns/mnt` links to in processes that live here.
    #[must_use]
    pub fn mount_name(&self) -> String {
        let link = format!("/proc/self/fd/{}", self.mnt.as_raw_fd());
        let name = std::fs::read_link(link).expect("the descriptor is open");
        name.to_string_lossy().into_owned()
    }

    /// Path by which programs such as ip(8) and nsenter(1) reach the network namespace.
    #[must_use]
    pub fn net_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }
}

pub(crate) fn enter(namespace: RawFd) -> io::Result<()> {
    // SAFETY: setns(2) takes no pointers and changes the calling thread only.
    check(unsafe { libc::setns(namespace, 0) })
}

/// Sets the propagation of all mounts of the thread's namespace.
fn set_propagation(propagation: libc::c_ulong) -> io::Result<()> {
    let none = std::ptr::null();
    // SAFETY: the target is a constant C string; source, type and data are not used for this.
    check(unsafe {
        libc::mount(
            none,
            c"/".as_ptr(),
            none,
            libc::MS_REC | propagation,
            none.cast(),
        )
    })
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
