//! dockerd with its stock client.

use crate::engine::{Place, runtime_path};
use gamut_tests::Output;

struct Dockerd(Place);

impl Dockerd {
    fn start() -> Option<Self> {
        let mut place = Place::new(&["dockerd", "docker", "containerd"])?;
        let socket = format!("unix://{}", place.text("sock"));
        let runtime = format!("gamut={}", runtime_path());
        place.serve(
            "dockerd",
            &[
                "--data-root",
                &place.text("data"),
                "--exec-root",
                &place.text("exec"),
                "--pidfile",
                &place.text("pid"),
                "-H",
                &socket,
                "--bridge",
                "none",
                "--iptables=false",
                "--add-runtime",
                &runtime,
                "--default-runtime",
                "gamut",
            ],
            |place| place.run("docker", &["-H", &socket, "version"]).code == 0,
        );
        let dockerd = Self(place);
        let archive = dockerd.0.text("rootfs.tar");
        let file = std::fs::File::create(&archive).unwrap();
        let mut builder = tar::Builder::new(file);
        builder.follow_symlinks(false);
        builder
            .append_dir_all(".", dockerd.0.path("rootfs"))
            .unwrap();
        builder.finish().unwrap();
        drop(dockerd.docker(&["import", &archive, "busybox"]).ok());
        Some(dockerd)
    }

    fn docker(&self, words: &[&str]) -> Output {
        let socket = format!("unix://{}", self.0.text("sock"));
        self.0.run("docker", &[&["-H", &socket], words].concat())
    }

    fn run(&self, options: &[&str], words: &[&str]) -> Output {
        let head = ["run", "--network", "none"];
        self.docker(&[&head[..], options, &["busybox"], words].concat())
    }
}

#[test]
fn dockerd_runs_containers() {
    let Some(dockerd) = Dockerd::start() else {
        return;
    };
    let info = dockerd.docker(&["info", "--format", "{{.DefaultRuntime}}"]);
    assert_eq!(info.ok().trim(), "gamut");
    let output = dockerd.run(
        &["--rm", "--hostname", "inside", "--memory", "64m"],
        &["sh", "-c", "hostname; exit 7"],
    );
    assert_eq!(
        (output.code, output.stdout.trim()),
        (7, "inside"),
        "{output:#?}"
    );
    let missing = dockerd.run(&["--rm"], &["nosuch"]);
    assert_eq!(missing.code, 127, "{missing:#?}");

    drop(
        dockerd
            .run(&["-d", "--name", "box"], &["sleep", "1000"])
            .ok(),
    );
    let inside = dockerd.docker(&["exec", "box", "sh", "-c", "echo in; exit 3"]);
    assert_eq!(
        (inside.code, inside.stdout.trim()),
        (3, "in"),
        "{inside:#?}"
    );
    assert!(dockerd.docker(&["top", "box"]).ok().contains("sleep"));
    drop(dockerd.docker(&["stats", "--no-stream", "box"]).ok());
    drop(dockerd.docker(&["pause", "box"]).ok());
    drop(dockerd.docker(&["unpause", "box"]).ok());
    drop(
        dockerd
            .docker(&["update", "--cpu-shares", "512", "box"])
            .ok(),
    );
    let checkpoint = dockerd.docker(&["checkpoint", "create", "box", "one"]);
    assert_ne!(checkpoint.code, 0, "{checkpoint:#?}");
    drop(dockerd.docker(&["kill", "box"]).ok());
    assert_eq!(dockerd.docker(&["wait", "box"]).ok().trim(), "137");
    drop(dockerd.docker(&["start", "box"]).ok());
    drop(dockerd.docker(&["rm", "-f", "box"]).ok());
    assert_eq!(dockerd.docker(&["ps", "-a", "-q"]).ok().trim(), "");
}
