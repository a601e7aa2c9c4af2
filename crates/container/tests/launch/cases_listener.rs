//! Notifications of seccomp filters, with an agent of this process's own making.

use crate::Case;
use crate::rig::{Rig, end, piped, read_all, run, run_with, start, wait};
use gamut_abi::plan::{NamespaceKind, Plan, Seccomp, SeccompListener};
use gamut_container::exec;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

pub const CASES: &[Case] = &[
    ("listener_create", create),
    ("listener_of_one_that_waits", told_at_the_gate),
    ("listener_exec", exec_into),
    ("listener_init", with_init),
    ("listener_refused", refused),
];

/// Everything the set-up might want to do after the filter is notified, and mkdir, which the agent
/// refuses.
const NOTIFIED: [u32; 9] = [1, 46, 59, 83, 202, 228, 230, 124, 126];

fn filter() -> Seccomp {
    let instruction = |code: u16, yes: u8, no: u8, value: u32| {
        let [c0, c1] = code.to_ne_bytes();
        let [v0, v1, v2, v3] = value.to_ne_bytes();
        u64::from_ne_bytes([c0, c1, yes, no, v0, v1, v2, v3])
    };
    let mut program = vec![instruction(0x20, 0, 0, 0)];
    for number in NOTIFIED {
        program.push(instruction(0x15, 0, 1, number));
        program.push(instruction(0x06, 0, 0, 0x7fc0_0000));
    }
    program.push(instruction(0x06, 0, 0, 0x7fff_0000));
    Seccomp {
        program,
        flags: 1 << 3,
    }
}

fn listen(plan: &mut Plan, path: String) {
    plan.process.seccomp = Some(filter());
    plan.process.seccomp_listener = Some(SeccompListener {
        path,
        state: ["{\"pid\":", ",\"state\":{\"pid\":", "}}"]
            .map(String::from)
            .to_vec(),
    });
}

/// What came over the socket, and the descriptor with it.
fn receive(stream: &UnixStream) -> (String, OwnedFd) {
    let mut bytes = [0_u8; 256];
    let mut control = [0_u64; 8];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the header describes live buffers; a descriptor that came is ours.
    let (got, descriptor) = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control);
        let got = libc::recvmsg(stream.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC);
        let first = libc::CMSG_FIRSTHDR(&raw const header);
        assert!(!first.is_null(), "a descriptor must come with the state");
        let raw = libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned();
        (got, OwnedFd::from_raw_fd(raw))
    };
    let mut text = bytes[..usize::try_from(got).unwrap()].to_vec();
    (&*stream).read_to_end(&mut text).unwrap();
    (String::from_utf8(text).unwrap(), descriptor)
}

/// Answers notifications until nobody is left: mkdir fails with ENOSPC, the rest goes on.
fn answer(descriptor: &OwnedFd) {
    const RECEIVE: u64 = 0xc050_2100;
    const SEND: u64 = 0xc018_2101;
    loop {
        let mut poll = libc::pollfd {
            fd: descriptor.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // Kernels before 6.11 would wait for a notification of those who have gone.
        // SAFETY: one valid entry.
        unsafe { libc::poll(&raw mut poll, 1, -1) };
        if poll.revents & libc::POLLIN == 0 {
            return;
        }
        let mut notification = [0_u64; 10];
        // SAFETY: struct seccomp_notif has 80 bytes, which must be zero.
        let got =
            unsafe { libc::ioctl(descriptor.as_raw_fd(), RECEIVE, notification.as_mut_ptr()) };
        if got < 0 {
            return;
        }
        let number = notification[2] & 0xffff_ffff;
        let outcome = if number == 83 {
            u64::from((-libc::ENOSPC).cast_unsigned())
        } else {
            1 << 32
        };
        let response = [notification[0], 0, outcome];
        // SAFETY: struct seccomp_notif_resp has 24 bytes: id, value, error and flags.
        unsafe { libc::ioctl(descriptor.as_raw_fd(), SEND, response.as_ptr()) };
    }
}

/// An agent in a process of its own, since the launcher must have one thread. Writes what it was
/// told to a file.
struct Agent {
    pid: u32,
    told: String,
}

impl Agent {
    fn start(rig: &Rig, socket: &str) -> Self {
        let told = rig.path("told");
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        // SAFETY: this process has one thread; the child ends right here.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let (stream, _) = listener.accept().unwrap();
            drop(listener);
            let (text, descriptor) = receive(&stream);
            fs::write(&told, text).unwrap();
            answer(&descriptor);
            // SAFETY: no preconditions.
            unsafe { libc::_exit(0) };
        }
        Self {
            pid: pid.cast_unsigned(),
            told,
        }
    }

    fn end(self) -> String {
        assert_eq!(wait(self.pid), 0);
        fs::read_to_string(self.told).unwrap()
    }
}

/// Told must name the same process twice: one that this process can see.
fn told_pid(text: &str) -> u32 {
    let pid: u32 = text
        .strip_prefix("{\"pid\":")
        .and_then(|rest| rest.split(',').next())
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        text,
        format!("{{\"pid\":{pid},\"state\":{{\"pid\":{pid}}}}}")
    );
    pid
}

const SCRIPT: &str = "mkdir /x; echo over";
const OUTPUT: &str = "mkdir: can't create directory '/x': No space left on device\nover\n";

fn create(rig: &mut Rig) {
    // Longer than the address of a socket may be.
    let directory = rig.path(&"long".repeat(40));
    fs::create_dir_all(&directory).unwrap();
    let mut plan = rig.script(SCRIPT);
    let socket = format!("{directory}/agent");
    // Bound by its short name: the kernel would refuse the path.
    let there = rig.path("agent");
    let agent = Agent::start(rig, &there);
    fs::rename(&there, &socket).unwrap();
    listen(&mut plan, socket);
    let (stdio, output) = piped();
    let options = gamut_container::CreateOptions::default();
    let created = gamut_container::create(&plan, &[], stdio, None, options).unwrap();
    let running = created.start().unwrap();
    assert_eq!(read_all(output), OUTPUT);
    let pid = running.pid;
    assert_eq!(wait(pid), 0);
    assert_eq!(told_pid(&agent.end()), pid);
    // A process id that an intermediate has to tell.
    plan.time_offsets = vec![gamut_abi::plan::TimeOffset {
        boottime: true,
        seconds: 1,
        nanoseconds: 0,
    }];
    let agent = Agent::start(rig, &there);
    listen(&mut plan, there);
    assert_eq!(run(&plan).output, OUTPUT);
    assert!(told_pid(&agent.end()) > 0);
}

/// A container that waits for its start: the agent is told before that, and answers what the
/// process does until then and after it.
fn told_at_the_gate(rig: &mut Rig) {
    let mut plan = rig.script(SCRIPT);
    let socket = rig.path("agent");
    let agent = Agent::start(rig, &socket);
    listen(&mut plan, socket);
    let directory = rig.path("gate");
    fs::create_dir_all(&directory).unwrap();
    let gate = gamut_container::Gate::make(&directory, "start").unwrap();
    let (stdio, output) = piped();
    let options = gamut_container::CreateOptions {
        gate: Some(&gate),
        ..Default::default()
    };
    let created = gamut_container::create(&plan, &[], stdio, None, options).unwrap();
    let pid = created.detach();
    drop(gate);
    let told = fs::read_to_string(&agent.told).unwrap();
    assert_eq!(told_pid(&told), pid);
    gamut_container::Gate::open(&directory, "start").unwrap();
    assert_eq!(read_all(output), OUTPUT);
    assert_eq!(wait(pid), 0);
    agent.end();
}

fn exec_into(rig: &mut Rig) {
    let socket = rig.path("agent");
    for own_pids in [true, false] {
        let mut plan = rig.plan(&["sleep", "100"]);
        if !own_pids {
            plan.namespaces
                .retain(|namespace| namespace.kind != NamespaceKind::Pid);
        }
        let running = start(&plan);
        let agent = Agent::start(rig, &socket);
        listen(&mut plan, socket.clone());
        let mut process = plan.process.clone();
        process.args = ["sh", "-c", SCRIPT].map(String::from).to_vec();
        let (stdio, output) = piped();
        let init = running.pidfd.as_fd();
        let child = exec(init, running.pid, &process, &plan, stdio, None).unwrap();
        assert_eq!(read_all(output), OUTPUT);
        assert_eq!(wait(child.pid), 0);
        assert_eq!(told_pid(&agent.end()), child.pid);
        end(running);
    }
}

fn with_init(rig: &mut Rig) {
    let mut plan = rig.script(SCRIPT);
    plan.process.init = true;
    let socket = rig.path("agent");
    let agent = Agent::start(rig, &socket);
    listen(&mut plan, socket);
    assert_eq!(run(&plan).output, OUTPUT);
    agent.end();
}

fn refused(rig: &mut Rig) {
    let mut plan = rig.plan(&["true"]);
    listen(&mut plan, rig.path("nobody"));
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("listenerPath"), "{error}");
    plan.process.seccomp_listener = None;
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("listenerPath"), "{error}");
    // An agent that is gone when the descriptor comes.
    let socket = rig.path("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    listen(&mut plan, socket);
    let created = gamut_container::create(
        &plan,
        &[],
        gamut_container::Stdio::Null,
        None,
        gamut_container::CreateOptions::default(),
    )
    .unwrap();
    drop(listener);
    let error = created.start().unwrap_err();
    assert!(error.message.contains("notification descriptor"), "{error}");
}
