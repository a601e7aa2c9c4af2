//! podman.

use crate::engine::{Place, runtime_path};
use gamut_tests::Output;

struct Podman(Place);

impl Podman {
    fn new() -> Option<Self> {
        let place = Place::new(&["podman", "conmon"])?;
        let config = "[containers]\n\
            default_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n\
            [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
        std::fs::write(place.path("containers.conf"), config).unwrap();
        Some(Self(place))
    }

    fn podman(&self, words: &[&str]) -> Output {
        let place = &self.0;
        let mut command = place.command("podman");
        command
            .env("CONTAINERS_CONF", place.path("containers.conf"))
            .args(["--storage-driver", "vfs"])
            .args([
                "--root",
                &place.text("root"),
                "--runroot",
                &place.text("run"),
            ])
            .args(["--runtime", &runtime_path()])
            .args(words);
        let mut session = gamut_tests::Session::start(&mut command);
        session.close_stdin();
        session.wait()
    }

    fn run(&self, options: &[&str], words: &[&str]) -> Output {
        let rootfs = self.0.text("rootfs");
        let head = ["run", "--network", "none"];
        let arguments = [&head[..], options, &["--rootfs", &rootfs], words].concat();
        self.podman(&arguments)
    }
}

#[test]
fn podman_runs_containers() {
    let Some(podman) = Podman::new() else {
        return;
    };
    let output = podman.run(
        &["--rm", "--hostname", "inside", "--memory", "64m"],
        &["sh", "-c", "hostname; echo oops >&2; exit 7"],
    );
    assert_eq!(output.code, 7, "{output:#?}");
    assert_eq!(output.stdout.trim(), "inside");
    let missing = podman.run(&["--rm"], &["nosuch"]);
    assert_eq!(missing.code, 127, "{missing:#?}");

    drop(podman.run(&["-d", "--name", "c"], &["sleep", "1000"]).ok());
    let inside = podman.podman(&["exec", "c", "sh", "-c", "ps | grep -c sleep; exit 3"]);
    assert_eq!(inside.code, 3, "{inside:#?}");
    drop(podman.podman(&["pause", "c"]).ok());
    let state = podman.podman(&["inspect", "--format", "{{.State.Status}}", "c"]);
    assert_eq!(state.ok().trim(), "paused");
    drop(podman.podman(&["unpause", "c"]).ok());
    drop(podman.podman(&["update", "--cpus", "0.5", "c"]).ok());
    let checkpoint = podman.podman(&["container", "checkpoint", "c"]);
    assert_ne!(checkpoint.code, 0, "{checkpoint:#?}");
    assert_eq!(
        podman.podman(&["exec", "c", "echo", "alive"]).ok().trim(),
        "alive"
    );
    drop(podman.podman(&["kill", "--signal", "KILL", "c"]).ok());
    let code = podman.podman(&["wait", "c"]);
    assert_eq!(code.ok().trim(), "137");
    drop(podman.podman(&["rm", "c"]).ok());
    assert_eq!(podman.podman(&["ps", "-a", "-q"]).ok().trim(), "");
}

#[test]
fn podman_runs_unikernels() {
    let Some(podman) = Podman::new().filter(|podman| podman.0.add_unikernel("probe")) else {
        return;
    };
    // What the program is, decides.
    let output = podman.run(&["--rm", "-e", "A=b"], &["/unikernel", "env"]);
    assert!(output.ok().lines().any(|line| line == "A=b"));
    let output = podman.run(&["--rm"], &["/unikernel", "exit", "7"]);
    assert_eq!(output.code, 7, "{output:#?}");
    drop(
        podman
            .run(&["-d", "--name", "c"], &["/unikernel", "stop", "wait"])
            .ok(),
    );
    let exec = podman.podman(&["exec", "c", "true"]);
    assert_ne!(exec.code, 0, "{exec:#?}");
    drop(podman.podman(&["stop", "c"]).ok());
    let state = podman.podman(&["inspect", "--format", "{{.State.ExitCode}}", "c"]);
    assert_eq!(state.ok().trim(), "0");
    assert!(podman.podman(&["logs", "c"]).ok().contains("stopping"));
    drop(podman.podman(&["rm", "c"]).ok());
}
