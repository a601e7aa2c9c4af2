//! testcontainers for Python, with a reaper that works through the bind-mounted socket.

use gamut_tests::{Daemon, Rootfs, Session, eventually, on_path, skipped};
use std::path::{Path, PathBuf};

/// What a test suite does with it. It ends without removing anything, as one that crashed.
const SUITE: &str = r#"
import os, sys, urllib.request
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

network = Network().create()
web = (
    DockerContainer("busybox")
    .with_command(["sh", "-c", "echo $GREETING > /srv/index.html; echo ready; exec httpd -f -p 80 -h /srv"])
    .with_env("GREETING", "hello")
    .with_exposed_ports(80)
    .with_network(network)
    .with_network_aliases("web")
    .waiting_for(LogMessageWaitStrategy("ready"))
    .start()
)
url = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(80)}/"
print("page:", urllib.request.urlopen(url, timeout=10).read().decode().strip())
print("exec:", web.exec(["sh", "-c", "echo inside"]).output.decode().strip())
print("logs:", web.get_logs()[0].decode().strip())
with DockerContainer("busybox").with_command(
    ["wget", "-q", "-O", "-", "http://web/"]
).with_network(network).start() as other:
    print("exit:", other.get_wrapped_container().wait()["StatusCode"])
    print("other:", other.get_logs()[0].decode().strip())
sys.stdout.flush()
os._exit(0)
"#;

/// A python that has testcontainers: `GAMUT_TEST_PYTHON`, the one that `./test --setup` makes, or
/// the system's. `None`, said aloud, if none has.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("GAMUT_TEST_PYTHON").map(PathBuf::from);
    let test = std::env::current_exe().unwrap();
    let made = test.ancestors().map(|one| one.join("python/bin/python"));
    let found = named
        .into_iter()
        .chain(made)
        .chain(on_path("python3"))
        .find(|python| has_testcontainers(python));
    if found.is_none() {
        skipped("no python with testcontainers (./test --setup makes one)");
    }
    found
}

fn has_testcontainers(python: &Path) -> bool {
    python.is_file()
        && std::process::Command::new(python)
            .args(["-c", "import testcontainers.core.wait_strategies"])
            .output()
            .is_ok_and(|output| output.status.success())
}

#[test]
fn a_suite_that_crashes_leaves_nothing() {
    let Some(python) = python() else { return };
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let reaper = Rootfs::new()
        .directory("tmp", 0o1777, 0)
        .directory("var", 0o755, 0)
        .directory("var/run", 0o755, 0)
        .copy(Path::new(env!("GAMUT_REAPER")), "reaper", 0o755);
    daemon.import(&reaper.finish(), "reaper:1", &["ENTRYPOINT [\"/reaper\"]"]);
    let mut command = daemon.command(python);
    command
        .args(["-c", SUITE])
        .env("RYUK_CONTAINER_IMAGE", "reaper:1")
        .env("HOME", daemon.directory());
    let mut session = Session::start(&mut command);
    session.close_stdin();
    let output = session.wait();
    assert_eq!(output.code, 0, "{output:#?}");
    let said: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(
        said,
        [
            "page: hello",
            "exec: inside",
            "logs: ready",
            "exit: 0",
            "other: hello"
        ],
        "{output:#?}"
    );
    eventually("the reaper has removed all, and itself", || {
        daemon.ok(&["ps", "-a", "-q"]).is_empty()
    });
    daemon.finish();
}
