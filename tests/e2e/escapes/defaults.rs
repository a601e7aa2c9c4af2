//! What a plain `gamut run` comes to: what the runtime section (5) of the CIS Docker benchmark asks,
//! as docker-bench-security asks it, by `docker inspect`. docs/security.md says which of its checks
//! are about flags that are the user's.

use gamut_tests::Daemon;
use serde_json::Value;

/// What a field has to be.
type Wanted<'a> = (&'static str, &'a dyn Fn(&Value) -> bool);

/// Fields of the inspected container are what they should be.
#[track_caller]
fn check(inspected: &Value, wanted: &[Wanted<'_>]) {
    for (pointer, is_good) in wanted {
        let value = inspected.pointer(pointer).unwrap_or(&Value::Null);
        assert!(is_good(value), "{pointer} is {value}");
    }
}

#[test]
fn the_cis_benchmark_has_nothing_to_say_against_the_defaults() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    let own = |value: &Value| value != "host";
    let off = |value: &Value| value == false;
    daemon.detached("plain", &["-v", "vol:/vol"], "exec sleep 1000");
    check(
        &daemon.inspect("plain"),
        &[
            ("/HostConfig/CapAdd", &empty),    // 5.4
            ("/HostConfig/Privileged", &off),  // 5.5
            ("/HostConfig/NetworkMode", &own), // 5.10
            ("/HostConfig/RestartPolicy/MaximumRetryCount", &|value| {
                value == 0
            }), // 5.15
            ("/HostConfig/PidMode", &own),     // 5.16
            ("/HostConfig/IpcMode", &own),     // 5.17
            ("/HostConfig/Devices", &empty),   // 5.18
            ("/Mounts/0/Propagation", &|value| value != "shared"), // 5.20
            ("/HostConfig/UTSMode", &own),     // 5.21
            ("/HostConfig/SecurityOpt", &empty), // 5.22
            ("/HostConfig/CgroupParent", &empty), // 5.25
            ("/HostConfig/UsernsMode", &own),  // 5.31
            ("/HostConfig/CgroupnsMode", &own),
        ],
    );
    // What is the user's to choose is shown as it was chosen.
    let flags = [
        "--memory",
        "64m",
        "--cpu-shares",
        "512",
        "--read-only",
        "--pids-limit",
        "50",
        "--security-opt",
        "no-new-privileges",
        "--ulimit",
        "nofile=100:100",
    ];
    daemon.detached("chosen", &flags, "exec sleep 1000");
    check(
        &daemon.inspect("chosen"),
        &[
            ("/HostConfig/Memory", &|value| value == 64 << 20), // 5.11
            ("/HostConfig/CpuShares", &|value| value == 512),   // 5.12
            ("/HostConfig/ReadonlyRootfs", &|value| value == true), // 5.13
            ("/HostConfig/Ulimits/0/Hard", &|value| value == 100), // 5.19
            ("/HostConfig/SecurityOpt/0", &|value| {
                value == "no-new-privileges"
            }), // 5.26
            ("/HostConfig/PidsLimit", &|value| value == 50),    // 5.29
        ],
    );
    // And is so.
    let script = "grep -E 'NoNewPrivs' /proc/self/status | cut -f2; ulimit -n; \
        (echo x > /x) 2>/dev/null || echo read-only";
    let output = daemon.ok(&["exec", "chosen", "sh", "-c", script]);
    assert_eq!(output, "1\n100\nread-only");
    daemon.finish();
}
