//! dockerd with its stock client.

use crate::engine::{Place, runtime_path};
use gamut_tests::{Output, eventually};

struct Dockerd(Place);

impl Dockerd {
    fn start() -> Option<Self> {
        let mut place = Place::new(&["dockerd", "docker", "containerd"])?;
        let socket = format!("unix://{}", place.text("sock"));
        let runtime = format!("gamut={}", runtime_path());
        // The same program; by this name every bundle is a unikernel's.
        let unikernels = std::path::PathBuf::from(runtime_path()).with_file_name("gamut-unikernel");
        let unikernels = format!("gamut-unikernel={}", unikernels.display());
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
                "--add-runtime",
                &unikernels,
                "--default-runtime",
                "gamut",
            ],
            |place| place.run("docker", &["-H", &socket, "version"]).code == 0,
        );
        let dockerd = Self(place);
        // Busybox and, if it was built, a unikernel in one image.
        let _ = dockerd.0.add_unikernel("probe");
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

#[test]
fn dockerd_runs_unikernels() {
    let Some(dockerd) = Dockerd::start() else {
        return;
    };
    if gamut_tests::unikernel("probe").is_none() {
        return;
    }
    let unikernel = |options: &[&str], words: &[&str]| {
        let head = ["run", "--runtime", "gamut-unikernel"];
        let image = ["busybox", "/unikernel"];
        dockerd.docker(&[&head[..], options, &image, words].concat())
    };
    let none = ["--rm", "--network", "none"];
    let output = unikernel(&[&none[..], &["-e", "A=b"]].concat(), &["env"]);
    assert!(output.ok().contains("A=b"), "{output:#?}");
    let output = unikernel(&none, &["exit", "7"]);
    assert_eq!(output.code, 7, "{output:#?}");
    let output = unikernel(&none, &["crash", "panic"]);
    assert_eq!(output.code, 101, "{output:#?}");
    // The bundle's program is one: dockerd's own runtime finds out by itself.
    let output = dockerd.run(&["--rm"], &["/unikernel", "print", "found"]);
    assert_eq!(output.ok().trim(), "found");
    drop(
        unikernel(
            &["-d", "--network", "none", "--name", "u"],
            &["stop", "wait"],
        )
        .ok(),
    );
    eventually("it waits to be stopped", || {
        dockerd.docker(&["logs", "u"]).stdout.contains("waiting")
    });
    drop(dockerd.docker(&["pause", "u"]).ok());
    drop(dockerd.docker(&["unpause", "u"]).ok());
    drop(dockerd.docker(&["stop", "u"]).ok());
    let code = dockerd.docker(&["inspect", "-f", "{{.State.ExitCode}}", "u"]);
    assert_eq!(code.ok().trim(), "0");
    let exec = dockerd.docker(&["start", "u"]);
    assert_eq!(exec.code, 0, "{exec:#?}");
    let exec = dockerd.docker(&["exec", "u", "true"]);
    assert_ne!(exec.code, 0, "{exec:#?}");
    drop(dockerd.docker(&["rm", "-f", "u"]).ok());

    // On a network of dockerd's, with its resolver.
    drop(dockerd.docker(&["network", "create", "net"]).ok());
    let serve = "echo page > /tmp/index.html; exec httpd -f -p 80 -h /tmp";
    let web = ["run", "-d", "--network", "net", "--name", "web", "busybox"];
    drop(
        dockerd
            .docker(&[&web[..], &["sh", "-c", serve]].concat())
            .ok(),
    );
    let output = unikernel(&["--rm", "--network", "net"], &["get", "http://web/"]);
    assert_eq!(output.ok().trim(), "status 200\npage", "{output:#?}");
    drop(dockerd.docker(&["rm", "-f", "web"]).ok());
    drop(dockerd.docker(&["network", "rm", "net"]).ok());
    assert_eq!(dockerd.docker(&["ps", "-a", "-q"]).ok().trim(), "");
}
