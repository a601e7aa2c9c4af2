//! A guest on a network: interfaces of the namespace, taps, and what happens when they go.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use common::{MONITOR, Outcome, Setup, finish, has_kvm, read_until, setup};

/// Two network namespaces of this thread's, joined by a cable: `v0` here, `eth0` there.
struct Cable {
    inside: OwnedFd,
    outside: OwnedFd,
    /// Holds the inner namespace for `ip`.
    holder: Child,
}

impl Drop for Cable {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn unshare_network() -> OwnedFd {
    // SAFETY: plain numbers; only this thread is concerned.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    std::fs::File::open("/proc/thread-self/ns/net")
        .expect("a namespace")
        .into()
}

fn enter(namespace: &OwnedFd) {
    // SAFETY: an open descriptor of a namespace.
    let done = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

fn ip(words: &str) {
    let output = Command::new("ip")
        .args(words.split(' '))
        .output()
        .expect("ip runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {words}: {errors}");
}

impl Cable {
    fn new() -> Self {
        let inside = unshare_network();
        let holder = Command::new("sleep")
            .arg("300")
            .spawn()
            .expect("sleep runs");
        let outside = unshare_network();
        let holder_id = holder.id();
        let cable = Self {
            inside,
            outside,
            holder,
        };
        ip(&format!(
            "link add v0 address 02:00:00:00:00:01 type veth peer name eth0 \
             address 02:00:00:00:00:02 netns {holder_id}"
        ));
        ip("link set v0 up");
        cable.inside(|| {
            ip("link set eth0 mtu 1400");
            ip("addr add 10.9.0.2/24 dev eth0");
            ip("-6 addr add fd09::2/64 dev eth0 nodad");
            ip("link set eth0 up");
            ip("route add default via 10.9.0.1");
            ip("-6 route add default via fd09::1");
        });
        cable
    }

    fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        enter(&self.inside);
        let result = work();
        enter(&self.outside);
        result
    }

    fn spawn(&self, setup: &Setup) -> Child {
        self.inside(|| spawn(setup))
    }
}

/// Starts a monitor in this thread's namespace.
fn spawn(setup: &Setup) -> Child {
    Command::new(MONITOR)
        .arg(setup.config_path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the monitor runs")
}

fn run(setup: &Setup) -> Outcome {
    finish(spawn(setup))
}

/// Link-layer frames of the tests' own type on `v0`.
struct Frames(OwnedFd);

const KIND: [u8; 2] = [0x88, 0xb5];

impl Frames {
    fn on(interface: &str) -> Self {
        let protocol = i32::from(u16::from_be_bytes(KIND).to_be());
        // SAFETY: plain numbers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol) };
        assert!(socket >= 0, "{}", io::Error::last_os_error());
        // SAFETY: just made.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let name = std::ffi::CString::new(interface).unwrap();
        // SAFETY: an all-zero address is valid; the name ends.
        unsafe {
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
            address.sll_protocol = u16::from_be_bytes(KIND).to_be();
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()).try_into().unwrap();
            let size = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
            let done = libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size);
            assert_eq!(done, 0, "{}", io::Error::last_os_error());
            let time = libc::timeval {
                tv_sec: 20,
                tv_usec: 0,
            };
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const time).cast(),
                u32::try_from(size_of::<libc::timeval>()).unwrap(),
            );
        }
        Self(socket)
    }

    fn send(&self, payload: &[u8]) {
        let frame = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1], &KIND[..], payload].concat();
        // SAFETY: valid for reads of its length.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(usize::try_from(sent).ok(), Some(frame.len()));
    }

    fn receive(&self) -> Vec<u8> {
        let mut frame = vec![0; 2000];
        // SAFETY: valid for writes of its length.
        let bytes = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                frame.as_mut_ptr().cast(),
                frame.len(),
                0,
            )
        };
        let bytes = usize::try_from(bytes).expect("a frame comes");
        frame.truncate(bytes);
        frame
    }
}

#[test]
fn frames_go_both_ways() {
    if !has_kvm() {
        return;
    }
    let cable = Cable::new();
    let setup = setup("echo");
    let mut child = cable.spawn(&setup);
    read_until(child.stdout.as_mut().expect("piped"), "ready");
    let frames = Frames::on("v0");
    // More at once than the guest has buffers for, and the largest that fits.
    for number in 0..10_u8 {
        frames.send(&[number; 60]);
    }
    frames.send(&[77; 1400]);
    for number in 0..10_u8 {
        let frame = frames.receive();
        assert_eq!(frame[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        assert_eq!(frame[14..], [number; 60]);
    }
    assert_eq!(frames.receive()[14..], [77; 1400]);
    frames.send(&[b"end".as_slice(), &[0; 60]].concat());
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.output.contains("end, more 0 status 0"),
        "{outcome:?}"
    );
}

#[test]
fn a_guest_is_told_its_addresses_and_a_killed_monitor_leaves_nothing_in_the_way() {
    if !has_kvm() {
        return;
    }
    let cable = Cable::new();
    let setup_echo = setup("echo");
    let mut killed = cable.spawn(&setup_echo);
    read_until(killed.stdout.as_mut().expect("piped"), "ready");
    killed.kill().expect("killed");
    finish(killed);
    let setup = setup("config");
    let outcome = finish(cable.spawn(&setup));
    assert!(
        outcome.output.contains(
            "net=0 mac=02:00:00:00:00:02 mtu=1400 address=10.9.0.2/24 address=fd09::2/64 \
             gateway=10.9.0.1 gateway=fd09::1\n"
        ),
        "{outcome:?}"
    );
}

#[test]
fn a_tap_that_was_prepared_is_opened() {
    if !has_kvm() {
        return;
    }
    let _namespace = unshare_network();
    ip("tuntap add dev tap0 mode tap");
    ip("link set tap0 address 02:00:00:00:00:11 up");
    let setup_echo = setup("echo");
    let mut first = spawn(&setup_echo);
    read_until(first.stdout.as_mut().expect("piped"), "ready");
    let setup_config = setup("config");
    let second = run(&setup_config);
    assert_eq!(second.code, Some(126), "{second:?}");
    assert!(
        second
            .errors
            .contains("interface tap0: another program uses this tap"),
        "{second:?}"
    );
    first.kill().expect("killed");
    finish(first);
    let outcome = run(&setup_config);
    assert!(
        outcome
            .output
            .contains("net=0 mac=02:00:00:00:00:10 mtu=1500 dhcp\n"),
        "{outcome:?}"
    );
}

#[test]
fn an_interface_of_the_host_is_refused() {
    if !has_kvm() {
        return;
    }
    let _namespace = unshare_network();
    ip("link add br0 type bridge");
    let setup = setup("hello");
    assert_eq!(run(&setup).code, Some(0), "down, it is nobody's");
    ip("link set br0 up");
    let outcome = run(&setup);
    assert_eq!(outcome.code, Some(126), "{outcome:?}");
    assert!(
        outcome
            .errors
            .contains("network interface br0: a device of kind Bridge cannot be given"),
        "{outcome:?}"
    );
}

#[test]
fn a_guest_whose_tap_is_deleted_is_ended() {
    if !has_kvm() {
        return;
    }
    let cable = Cable::new();
    let setup = setup("echo");
    let mut child = cable.spawn(&setup);
    read_until(child.stdout.as_mut().expect("piped"), "ready");
    cable.inside(|| ip("link del gamut-tap0"));
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(126), "{outcome:?}");
    assert!(outcome.errors.contains("is gone"), "{outcome:?}");
}
