//! Interfaces that move into a container, from a network namespace of the test's own.

use crate::Case;
use crate::rig::{Rig, run, run_with, wait};
use gamut_abi::plan::{NamespaceKind, NetworkDevice, Plan};
use std::process::Command;

pub const CASES: &[Case] = &[
    ("network_devices", devices),
    ("network_devices_refused", refused),
];

/// Runs `body` in a child of this process, in a new network namespace with two veth interfaces.
fn in_own_network(body: impl FnOnce()) {
    // SAFETY: this process has one thread; the child ends right here.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // SAFETY: plain call.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            ip("link add moving type veth peer name staying");
            ip("link set moving mtu 1400 up");
            ip("link set staying up");
            ip("addr add 192.0.2.7/24 dev moving");
            ip("addr add 2001:db8::7/64 dev moving nodad");
            body();
        }));
        // SAFETY: no preconditions.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    assert_eq!(wait(pid.cast_unsigned()), 0, "see above");
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status();
    assert!(status.unwrap().success(), "ip {words}");
}

fn moving(plan: &mut Plan) {
    plan.network_devices = vec![NetworkDevice {
        name: String::from("moving"),
        container_name: String::from("inside0"),
    }];
}

fn devices(rig: &mut Rig) {
    let mut plan = rig.script(
        "ip -o addr show dev inside0 scope global | awk '{print $4}'; cat /sys/class/net/inside0/mtu; ip link show inside0 | grep -c ',UP'; ls /sys/class/net",
    );
    moving(&mut plan);
    in_own_network(|| {
        let outcome = run(&plan);
        assert_eq!(
            outcome.output,
            "192.0.2.7/24\n2001:db8::7/64\n1400\n1\ninside0\nlo\n"
        );
    });
}

fn refused(rig: &mut Rig) {
    let mut plan = rig.plan(&["true"]);
    moving(&mut plan);
    plan.network_devices[0].name = String::from("nowhere");
    in_own_network(|| {
        let error = run_with(&plan, &[]).unwrap_err();
        assert!(error.message.contains("nowhere") && error.message.contains("no such interface"));
    });
    plan.namespaces
        .retain(|namespace| namespace.kind != NamespaceKind::Network);
    let error = run_with(&plan, &[]).unwrap_err();
    assert!(error.message.contains("linux.netDevices"), "{error}");
}
