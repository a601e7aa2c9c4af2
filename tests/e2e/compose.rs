//! Docker Compose, as it is, against the socket.

use gamut_tests::{
    Daemon, Output, Session, debian_with_postgresql, eventually, on_path, skipped, unikernel,
};
use std::path::{Path, PathBuf};

const PROJECT: &str = r#"
version: "3.8"
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

/// A database that comes up healthy, applications that ask it, and a proxy in front of them.
const DATABASE: &str = r#"
services:
  db:
    image: postgresql
    command:
      - sh
      - -ec
      - |
        bin=/usr/lib/postgresql/15/bin
        install -d -o postgres /data/pg
        if ! test -s /data/pg/PG_VERSION; then
          su postgres -c "$$bin/initdb -A trust -D /data/pg"
          echo "host all all all trust" >>/data/pg/pg_hba.conf
        fi
        exec su postgres -c "exec $$bin/postgres -D /data/pg -c listen_addresses=*"
    healthcheck:
      test: ["CMD", "psql", "-U", "postgres", "-h", "127.0.0.1", "-c", "select 1"]
      interval: 1s
      retries: 120
    stop_signal: SIGINT
    volumes: ["data:/data"]
    networks: [back]
  web:
    image: postgresql
    command: ["busybox", "httpd", "-f", "-p", "8000", "-h", "/srv"]
    restart: always
    depends_on:
      db:
        condition: service_healthy
    volumes: ["./web:/srv/cgi-bin:ro"]
    networks: [front, back]
PROXY
    depends_on: [web]
    ports: ["8089:80"]
    networks: [front]
networks:
  front: {}
  back:
    internal: true
volumes:
  data: {}
"#;

/// The proxy as a container.
const CONTAINER: &str = r#"
  proxy:
    image: busybox
    command: ["httpd", "-f", "-p", "80", "-c", "/proxy/httpd.conf"]
    volumes: ["./proxy:/proxy:ro"]
"#;

/// The proxy as a unikernel.
const UNIKERNEL: &str = r#"
  proxy:
    image: proxy
    runtime: gamut-unikernel
    command: ["web:8000"]
"#;

/// Writes a visit down, and tells how many there were, to how many of the applications.
const APPLICATION: &str = r#"#!/bin/sh
echo "Content-Type: text/plain"
echo
psql -h db -U postgres -qtA -c "create table if not exists visits (host text)" \
    -c "insert into visits values ('$(hostname)')" \
    -c "select count(*) || ' visits to ' || count(distinct host) from visits" 2>&1
"#;

/// A compose program, as it is started for one project.
struct Compose<'a> {
    program: &'a Path,
    daemon: &'a Daemon,
    file: PathBuf,
}

impl<'a> Compose<'a> {
    fn new(program: &'a Path, daemon: &'a Daemon, project: &str) -> Self {
        let file = daemon.directory().join("compose.yaml");
        std::fs::write(&file, project).unwrap();
        Self {
            program,
            daemon,
            file,
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.daemon.command(self.program);
        command.args(["-p", "shop", "-f"]);
        command.arg(&self.file).args(arguments);
        let mut session = Session::start(&mut command);
        session.close_stdin();
        session.wait()
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).ok()
    }

    /// Takes the project down; nothing is left of it.
    fn down(&self) {
        let _ = self.ok(&["down", "-v", "-t", "1"]);
        assert_eq!(self.daemon.ok(&["ps", "-a", "-q"]), "");
        assert_eq!(self.daemon.ok(&["volume", "ls", "-q"]), "");
        let custom = ["network", "ls", "-q", "--filter", "type=custom"];
        assert_eq!(self.daemon.ok(&custom), "");
    }
}

fn says(program: &Path, first: &str) -> bool {
    let output = std::process::Command::new(program).arg("version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with(first))
}

/// Compose version 2: a program of its own, or the docker client's plugin. `None`, said aloud,
/// without one.
fn version_2() -> Option<PathBuf> {
    let plugins = [
        "/usr/libexec/docker/cli-plugins/docker-compose",
        "/usr/lib/docker/cli-plugins/docker-compose",
        "/usr/local/lib/docker/cli-plugins/docker-compose",
    ];
    let named = std::env::var_os("GAMUT_TEST_COMPOSE").map(PathBuf::from);
    let found = named
        .into_iter()
        .chain(plugins.into_iter().map(PathBuf::from))
        .chain(on_path("docker-compose"))
        .find(|path| says(path, "Docker Compose version"));
    if found.is_none() {
        skipped("no docker compose of version 2 (Debian 13: docker-compose)");
    }
    found
}

/// Compose version 1. `None`, said aloud, without one.
fn version_1() -> Option<PathBuf> {
    let found = on_path("docker-compose").filter(|path| says(path, "docker-compose version 1."));
    if found.is_none() {
        skipped("no docker-compose of version 1 (Debian 12: docker-compose)");
    }
    found
}

fn a_project_comes_up_is_scaled_and_goes_down_without_a_trace(program: Option<PathBuf>) {
    let Some(program) = program else {
        return;
    };
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let compose = Compose::new(&program, &daemon, PROJECT);
    // Twice: what the first leaves behind would be in the second's way.
    for _ in 0..2 {
        let _ = compose.ok(&["up", "-d"]);
        assert_eq!(
            daemon.lines(&["ps", "--format", "{{.State}}"]),
            ["running", "running"]
        );
        assert_eq!(compose.ok(&["ps", "-q"]).lines().count(), 2);
        assert!(daemon.fetch("127.0.0.1:8088").is_some());
        let looked_up = compose.ok(&["exec", "-T", "client", "nslookup", "-type=a", "site"]);
        assert!(looked_up.contains("10.91.0."), "{looked_up}");
        eventually("the client tells what it has fetched", || {
            let logs = compose.run(&["logs", "--no-color", "client"]);
            logs.stdout.contains("Hello from Gamut")
        });
        let _ = compose.ok(&["up", "-d", "--scale", "client=3"]);
        let all = compose.ok(&[
            "exec", "-T", "--index", "2", "client", "nslookup", "-type=a", "client",
        ]);
        assert_eq!(all.matches("Name:\tclient").count(), 3, "{all}");
        // Changed and made anew, with the address of its network.
        let _ = compose.ok(&["up", "-d", "--force-recreate", "-t", "0", "web"]);
        assert!(daemon.fetch("127.0.0.1:8088").is_some());
        assert_eq!(
            compose.ok(&["run", "--rm", "-T", "client", "echo", "once"]),
            "once"
        );
        let _ = compose.ok(&["restart", "-t", "0", "client"]);
        let _ = compose.ok(&["stop", "-t", "0"]);
        let _ = compose.ok(&["start"]);
        compose.down();
    }
    daemon.finish();
}

#[test]
fn version_1_brings_a_project_up_scales_it_and_leaves_no_trace() {
    a_project_comes_up_is_scaled_and_goes_down_without_a_trace(version_1());
}

#[test]
fn version_2_brings_a_project_up_scales_it_and_leaves_no_trace() {
    a_project_comes_up_is_scaled_and_goes_down_without_a_trace(version_2());
}

/// The counts in what the application has answered.
fn visits(answer: &str) -> Option<(u32, u32)> {
    let (visits, hosts) = answer.trim().split_once(" visits to ")?;
    Some((visits.parse().ok()?, hosts.parse().ok()?))
}

fn a_database_with_applications_and_a_proxy(program: Option<PathBuf>, proxy: &str) {
    let Some(program) = program else {
        return;
    };
    let Some(archive) = debian_with_postgresql() else {
        return;
    };
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    daemon.import(&archive, "postgresql", &[]);
    if proxy == UNIKERNEL {
        if std::fs::File::open("/dev/kvm").is_err() {
            return skipped("no /dev/kvm");
        }
        let Some(program) = unikernel("proxy") else {
            return;
        };
        let program = program.display().to_string();
        daemon.ok(&["unikernel", "pack", "-t", "proxy", &program]);
    }
    let project = DATABASE.replace("PROXY", proxy.trim_matches('\n'));
    let compose = Compose::new(&program, &daemon, &project);
    for (directory, file, content) in [
        // What busybox's httpd answers to a request for a directory.
        ("web", "index.cgi", APPLICATION),
        ("proxy", "httpd.conf", "P:/:web:8000/\n"),
    ] {
        let directory = daemon.directory().join(directory);
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join(file);
        std::fs::write(&path, content).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
    }
    let visit = || visits(&daemon.fetch("127.0.0.1:8089").unwrap_or_default());
    for _ in 0..2 {
        let _ = compose.ok(&["up", "-d"]);
        eventually("the first visit is counted", || visit() == Some((1, 1)));
        let _ = compose.ok(&["up", "-d", "--scale", "web=3"]);
        eventually("all three applications are visited", || {
            visit().is_some_and(|(_, hosts)| hosts == 3)
        });
        // One is killed, and comes back by itself with the data behind it.
        let webs = compose.ok(&["ps", "-q", "web"]);
        let killed = webs.lines().next().unwrap();
        let pid = i32::try_from(daemon.container_pid(killed)).unwrap();
        // SAFETY: kill(2) takes no pointers; the process is a container's of this test.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        eventually("it runs again", || {
            daemon.inspect(killed)["RestartCount"].as_u64() == Some(1)
                && daemon.inspect(killed)["State"]["Running"] == true
        });
        eventually("visits are counted", || visit().is_some());
        // What was committed outlives the database's restart.
        let before = visit().unwrap();
        let _ = compose.ok(&["restart", "db"]);
        eventually("the database is back", || {
            visit().is_some_and(|(count, hosts)| count > before.0 && hosts == 3)
        });
        compose.down();
    }
    daemon.finish();
}

#[test]
#[ignore = "long: two turns of a project with a database"]
fn version_1_runs_a_database_with_applications_and_a_proxy() {
    a_database_with_applications_and_a_proxy(version_1(), CONTAINER);
}

#[test]
#[ignore = "long: two turns of a project with a database"]
fn version_1_runs_a_database_with_applications_and_a_unikernel_before_them() {
    a_database_with_applications_and_a_proxy(version_1(), UNIKERNEL);
}

#[test]
#[ignore = "long: two turns of a project with a database"]
fn version_2_runs_a_database_with_applications_and_a_proxy() {
    a_database_with_applications_and_a_proxy(version_2(), CONTAINER);
}

#[test]
#[ignore = "long: two turns of a project with a database"]
fn version_2_runs_a_database_with_applications_and_a_unikernel_before_them() {
    a_database_with_applications_and_a_proxy(version_2(), UNIKERNEL);
}
