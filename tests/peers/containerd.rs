//! containerd by its own client, ctr.

use crate::engine::{Place, assert_no_state, runtime_path};
use gamut_tests::{Output, eventually};

struct Containerd(Place);

impl Containerd {
    fn start() -> Option<Self> {
        let mut place = Place::new(&["containerd", "ctr"])?;
        let config = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{0}/sock\"\n",
            place.path("").display()
        );
        let path = place.text("config.toml");
        std::fs::write(&path, config).unwrap();
        place.serve("containerd", &["--config", &path], |place| {
            let socket = place.text("sock");
            place.run("ctr", &["-a", &socket, "version"]).code == 0
        });
        Some(Self(place))
    }

    fn ctr(&self, words: &[&str]) -> Output {
        let socket = self.0.text("sock");
        self.0.run("ctr", &[&["-a", &socket], words].concat())
    }

    fn run(&self, options: &[&str], id: &str, words: &[&str]) -> Output {
        let (rootfs, states) = (self.0.text("rootfs"), self.0.text("states"));
        let runtime = runtime_path();
        let head = ["run", "--runc-binary", &runtime, "--runc-root", &states];
        self.ctr(&[&head[..], options, &["--rootfs", &rootfs, id], words].concat())
    }
}

#[test]
fn containerd_runs_containers() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    let output = containerd.run(&["--rm"], "first", &["sh", "-c", "echo out; exit 7"]);
    assert_eq!(output.code, 7, "{output:#?}");
    assert_eq!(output.stdout.trim(), "out");

    drop(containerd.run(&["-d"], "c", &["sleep", "1000"]).ok());
    let inside = containerd.ctr(&[
        "task",
        "exec",
        "--exec-id",
        "e",
        "c",
        "sh",
        "-c",
        "echo in; exit 3",
    ]);
    assert_eq!(
        (inside.code, inside.stdout.trim()),
        (3, "in"),
        "{inside:#?}"
    );
    drop(containerd.ctr(&["task", "pause", "c"]).ok());
    assert!(containerd.ctr(&["task", "ls"]).ok().contains("PAUSED"));
    drop(containerd.ctr(&["task", "resume", "c"]).ok());
    let checkpoint = containerd.ctr(&["task", "checkpoint", "c"]);
    assert_ne!(checkpoint.code, 0, "{checkpoint:#?}");
    assert!(containerd.ctr(&["task", "ls"]).ok().contains("RUNNING"));
    drop(containerd.ctr(&["task", "metrics", "c"]).ok());
    drop(
        containerd
            .ctr(&["task", "kill", "--signal", "SIGKILL", "c"])
            .ok(),
    );
    eventually("it has stopped", || {
        containerd.ctr(&["task", "ls"]).ok().contains("STOPPED")
    });
    containerd.ctr(&["task", "rm", "c"]);
    drop(containerd.ctr(&["container", "rm", "c"]).ok());
    assert_eq!(containerd.ctr(&["container", "ls", "-q"]).ok().trim(), "");
    assert_no_state(&containerd.0.path("states").join("default"));
}

#[test]
fn containerd_runs_unikernels() {
    let Some(containerd) = Containerd::start() else {
        return;
    };
    if !containerd.0.add_unikernel("probe") {
        return;
    }
    let output = containerd.run(&["--rm"], "first", &["/unikernel", "print", "out"]);
    assert_eq!(output.ok().trim(), "out");
    let output = containerd.run(&["--rm"], "second", &["/unikernel", "exit", "7"]);
    assert_eq!(output.code, 7, "{output:#?}");
}
