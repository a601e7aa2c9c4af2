//! Docker Compose, as it is, against the socket.

use gamut_tests::{Daemon, Output, Session, eventually, on_path, skipped};
use std::path::PathBuf;

const PROJECT: &str = r#"
name: shop
services:
  web:
    image: hello-http
    ports: ["8088:80"]
    networks:
      front:
        aliases: [site]
      back: {}
  client:
    image: busybox
    command: ["sh", "-c", "while true; do wget -q -O - http://site/; sleep 1; done"]
    depends_on: [web]
    networks: [front]
    volumes: ["data:/data"]
networks:
  front:
    ipam:
      config:
        - subnet: 10.91.0.0/24
  back:
    internal: true
volumes:
  data: {}
"#;

/// Compose version 2: a program of its own, or the docker client's plugin. `None`, said aloud,
/// without one.
fn compose() -> Option<PathBuf> {
    let plugins = [
        "/usr/libexec/docker/cli-plugins/docker-compose",
        "/usr/lib/docker/cli-plugins/docker-compose",
        "/usr/local/lib/docker/cli-plugins/docker-compose",
    ];
    let found = std::env::var_os("GAMUT_TEST_COMPOSE")
        .map(PathBuf::from)
        .or_else(|| {
            plugins
                .into_iter()
                .map(PathBuf::from)
                .find(|path| path.is_file())
        })
        .or_else(|| on_path("docker-compose"));
    let version = |path: &PathBuf| {
        let output = std::process::Command::new(path).arg("version").output();
        output.is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout).starts_with("Docker Compose version")
        })
    };
    let found = found.filter(version);
    if found.is_none() {
        skipped("no docker compose of version 2 (Debian 13: docker-compose)");
    }
    found
}

#[test]
fn a_project_comes_up_is_scaled_and_goes_down_without_a_trace() {
    let Some(compose) = compose() else {
        return;
    };
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let file = daemon.directory().join("compose.yaml");
    std::fs::write(&file, PROJECT).unwrap();
    let run = |arguments: &[&str]| -> Output {
        let mut command = daemon.command(&compose);
        command.arg("-f").arg(&file).args(arguments);
        let mut session = Session::start(&mut command);
        session.close_stdin();
        session.wait()
    };
    // Twice: what the first leaves behind would be in the second's way.
    for _ in 0..2 {
        let _ = run(&["up", "-d"]).ok();
        let shown = run(&["ps", "--format", "{{.Name}} {{.State}}"]).ok();
        assert_eq!(shown, "shop-client-1 running\nshop-web-1 running");
        assert!(daemon.fetch("127.0.0.1:8088").is_some());
        let looked_up = run(&["exec", "-T", "client", "nslookup", "-type=a", "site"]).ok();
        assert!(looked_up.contains("10.91.0."), "{looked_up}");
        eventually("the client tells what it has fetched", || {
            run(&["logs", "--no-color", "client"])
                .stdout
                .contains("Hello from Gamut")
        });
        let _ = run(&["up", "-d", "--scale", "client=3"]).ok();
        let script = [
            "exec", "-T", "--index", "2", "client", "nslookup", "-type=a", "client",
        ];
        let all = run(&script).ok();
        assert_eq!(all.matches("Name:\tclient").count(), 3, "{all}");
        // Changed and made anew, with the address of its network.
        let _ = run(&["up", "-d", "--force-recreate", "-t", "0", "web"]).ok();
        assert!(daemon.fetch("127.0.0.1:8088").is_some());
        assert_eq!(
            run(&["run", "--rm", "-T", "client", "echo", "once"]).ok(),
            "once"
        );
        let _ = run(&["restart", "-t", "0", "client"]).ok();
        let _ = run(&["stop", "-t", "0"]).ok();
        let _ = run(&["start"]).ok();
        let _ = run(&["down", "-v", "-t", "0"]).ok();
        assert_eq!(daemon.ok(&["ps", "-a", "-q"]), "");
        assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "");
        assert_eq!(
            daemon.ok(&["network", "ls", "-q", "--filter", "type=custom"]),
            ""
        );
    }
    daemon.finish();
}
