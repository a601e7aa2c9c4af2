//! The ways to the engine: mutual TLS, ssh, contexts, and who may come in.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use gamut_tests::{Authority, Daemon, Output, Session, has, target_binary};

const ADDRESS: &str = "127.0.0.1:23760";

fn run(command: &mut Command) -> Output {
    let mut session = Session::start(command);
    session.close_stdin();
    session.wait()
}

/// A client of the daemon that is told nothing about where it is.
fn client(daemon: &Daemon, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
    let mut command = daemon.command(program);
    command
        .env_remove("GAMUT_HOST")
        .env_remove("DOCKER_HOST")
        .args(arguments);
    command
}

#[test]
fn tcp_is_for_those_who_show_a_certificate() {
    if !has("docker") || !has("openssl") {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let file = |name: &str| authority.server().join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let tcp = format!("tcp://{ADDRESS}");
    let flags = [
        "-H",
        "unix://",
        "-H",
        &tcp,
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
    ];
    let Some(daemon) = Daemon::start_with(&flags) else {
        return;
    };
    daemon.import(
        gamut_tests::busybox().unwrap(),
        "busybox",
        &["CMD [\"sh\"]"],
    );
    let docker = gamut_tests::on_path("docker").unwrap();
    let with = |program: &std::path::Path, files: &std::path::Path, arguments: &[&str]| {
        let mut command = client(&daemon, program, arguments);
        command
            .env("DOCKER_HOST", &tcp)
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", files);
        run(&mut command)
    };
    let own = target_binary();
    for program in [docker.as_path(), own.as_path()] {
        let hello = ["run", "--rm", "busybox", "echo", "through TLS"];
        assert_eq!(
            with(program, &authority.client(), &hello).ok(),
            "through TLS"
        );
        // Attached both ways, with an end of input.
        let mut cat = client(&daemon, program, &["run", "--rm", "-i", "busybox", "cat"]);
        cat.env("DOCKER_HOST", &tcp)
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", authority.client());
        let mut session = Session::start(&mut cat);
        session.write("there and back\n");
        session.expect("there and back");
        session.close_stdin();
        assert_eq!(session.wait().code, 0);
        // A certificate of somebody else, on either side.
        let output = with(program, &stranger.client(), &["ps"]);
        assert_ne!(output.code, 0, "{output:?}");
    }
    // Flags say the same as the environment.
    let of_client = |name: &str| authority.client().join(name).display().to_string();
    let (ca, cert, key) = (
        of_client("ca.pem"),
        of_client("cert.pem"),
        of_client("key.pem"),
    );
    let flags = [
        "-H",
        &tcp,
        "--tlsverify",
        "--tlscacert",
        &ca,
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
        "version",
    ];
    let output = run(&mut client(&daemon, &own, &flags));
    assert_eq!(output.code, 0, "{output:?}");
    // Certificates in a context: each client reads the other's.
    for (maker, user, name) in [(&docker, &own, "by-docker"), (&own, &docker, "by-gamut")] {
        let way = format!("host={tcp},ca={ca},cert={cert},key={key}");
        let made = ["context", "create", "--docker", &way, name];
        let _ = run(&mut client(&daemon, maker, &made)).ok();
        let version = [
            "--context",
            name,
            "version",
            "--format",
            "{{.Server.Version}}",
        ];
        let output = run(&mut client(&daemon, user, &version));
        assert_eq!(output.ok(), env!("CARGO_PKG_VERSION"));
    }
    // Without TLS there is no answer; the client says what is missing before it tries.
    let plain = daemon.namespaces().inside(|| {
        let mut stream = TcpStream::connect(ADDRESS).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
            .write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        answer
    });
    assert!(!plain.starts_with(b"HTTP"), "{plain:?}");
    let error = run(&mut client(&daemon, &own, &["-H", &tcp, "ps"])).fails(1);
    assert!(error.contains("mutual TLS"), "{error}");
    // Clients that never begin hold nobody up.
    let silent: Vec<TcpStream> = daemon.namespaces().inside(|| {
        (0..20)
            .map(|_| TcpStream::connect(ADDRESS).unwrap())
            .collect()
    });
    assert_eq!(with(&own, &authority.client(), &["ps", "-q"]).ok(), "");
    drop(silent);
    daemon.finish();
}

#[test]
fn tcp_without_tls_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let place = |name: &str| directory.path().join(name).display().to_string();
    for host in ["tcp://127.0.0.1:0", "tcp://0.0.0.0:2375"] {
        let mut command = Command::new(target_binary());
        command.args([
            "daemon",
            "--data-root",
            &place("data"),
            "--run-root",
            &place("run"),
            "-H",
            host,
        ]);
        let error = run(&mut command).fails(1);
        assert!(error.contains("TCP needs mutual TLS"), "{error}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// A stand-in for ssh(1): the other machine is this one.
fn fake_ssh(daemon: &Daemon) -> std::path::PathBuf {
    let bin = daemon.directory().join("bin");
    fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{log}\nwhile [ $# -gt 0 ] && [ \"$1\" != -- ] && [ \"$1\" != far.example ]; do shift; done\n\
         [ \"$1\" = -- ] && shift\nshift\nunset DOCKER_CONTEXT\nexport GAMUT_HOST=unix://{socket}\nexec \"$@\"\n",
        log = daemon.directory().join("ssh.log").display(),
        socket = daemon.socket().display()
    );
    fs::write(bin.join("ssh"), script).unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    // Both names of the program are there: docker's client asks for docker.
    for name in ["gamut", "docker"] {
        std::os::unix::fs::symlink(target_binary(), bin.join(name)).unwrap();
    }
    bin
}

#[test]
fn over_ssh_and_by_contexts() {
    if !has("docker") {
        return;
    }
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let bin = fake_ssh(&daemon);
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let docker = gamut_tests::on_path("docker").unwrap();
    let own = target_binary();
    let far = |program: &std::path::Path, arguments: &[&str]| {
        let mut command = client(&daemon, program, arguments);
        command.env("PATH", &path);
        command
    };
    for program in [&docker, &own] {
        let mut hello = far(program, &["run", "--rm", "busybox", "echo", "from afar"]);
        assert_eq!(
            run(hello.env("DOCKER_HOST", "ssh://me@far.example:2222")).ok(),
            "from afar"
        );
        let mut cat = far(program, &["run", "--rm", "-i", "busybox", "cat"]);
        let mut session = Session::start(cat.env("DOCKER_HOST", "ssh://me@far.example"));
        session.write("there and back\n");
        session.expect("there and back");
        session.close_stdin();
        assert_eq!(session.wait().code, 0);
    }
    let log = fs::read_to_string(daemon.directory().join("ssh.log")).unwrap();
    assert!(
        log.contains("-p 2222 -- me@far.example gamut system dial-stdio"),
        "{log}"
    );
    assert!(log.contains("docker system dial-stdio"), "{log}");

    // A context of ours is docker's, and the other way round.
    let socket = format!("host=unix://{}", daemon.socket().display());
    let _ = run(&mut far(
        &own,
        &[
            "context",
            "create",
            "--description",
            "Far away",
            "--docker",
            "host=ssh://far.example",
            "afar",
        ],
    ))
    .ok();
    let _ = run(&mut far(
        &docker,
        &["context", "create", "--docker", &socket, "near"],
    ))
    .ok();
    for program in [&docker, &own] {
        let names = run(&mut far(program, &["context", "ls", "-q"])).ok();
        assert_eq!(
            names,
            "afar\ndefault\nnear"
                .split('\n')
                .collect::<Vec<_>>()
                .join("\n")
                .as_str(),
            "{names}"
        );
        for name in ["afar", "near"] {
            let output = run(&mut far(
                program,
                &["--context", name, "info", "--format", "{{.ServerVersion}}"],
            ));
            assert_eq!(output.ok(), env!("CARGO_PKG_VERSION"));
        }
        let host = run(&mut far(
            program,
            &[
                "context",
                "inspect",
                "-f",
                "{{.Endpoints.docker.Host}}",
                "afar",
            ],
        ))
        .ok();
        assert_eq!(host, "ssh://far.example");
    }
    let _ = run(&mut far(&own, &["context", "use", "near"])).ok();
    for program in [&docker, &own] {
        assert_eq!(run(&mut far(program, &["context", "show"])).ok(), "near");
        assert_eq!(
            run(&mut far(
                program,
                &["version", "--format", "{{.Server.Version}}"]
            ))
            .ok(),
            env!("CARGO_PKG_VERSION")
        );
    }
    let error = run(&mut far(&own, &["context", "rm", "near"])).fails(1);
    assert!(error.contains("in use"), "{error}");
    let _ = run(&mut far(&own, &["context", "use", "default"])).ok();
    let _ = run(&mut far(&own, &["context", "rm", "near", "afar"])).ok();
    let error = run(&mut far(&own, &["--context", "near", "ps"])).fails(1);
    assert!(
        error.contains("context \"near\": context not found"),
        "{error}"
    );
    let error = run(&mut far(
        &own,
        &["-H", "unix:///x", "--context", "near", "ps"],
    ))
    .fails(1);
    assert!(error.contains("either --host or --context"), "{error}");
    daemon.finish();
}

/// What an ordinary user in the socket's group gets to see and do.
#[test]
fn users_are_told_apart_where_the_engine_is_told_to() {
    if !has("docker") || !has("setpriv") {
        return;
    }
    let Some(daemon) = Daemon::start_with(&["--authorization", "owner", "--group", "4242"]) else {
        return;
    };
    daemon.import(
        gamut_tests::busybox().unwrap(),
        "busybox",
        &["CMD [\"sh\"]"],
    );
    fs::set_permissions(daemon.directory(), fs::Permissions::from_mode(0o755)).unwrap();
    let docker = gamut_tests::on_path("docker").unwrap();
    let docker = docker.display().to_string();
    // After the namespaces are entered, which takes root.
    let as_member = |uid: u32, gid: u32, arguments: &[&str]| {
        let (uid, gid) = (uid.to_string(), gid.to_string());
        let become_user = ["--reuid", &uid, "--regid", &gid, "--clear-groups", &docker];
        let mut command = daemon.command("setpriv");
        command
            .env("DOCKER_CONFIG", "/nonexistent")
            .args(become_user)
            .args(arguments);
        run(&mut command)
    };
    let as_user = |uid: u32, arguments: &[&str]| as_member(uid, 4242, arguments);
    let root = |arguments: &[&str]| daemon.docker(arguments).ok();
    root(&["run", "-d", "--name", "roots", "busybox", "sleep", "1000"]);
    root(&["volume", "create", "roots-data"]);
    root(&["network", "create", "roots-net"]);

    // One's own containers, all the way.
    let _ = as_user(
        1000,
        &[
            "run",
            "-d",
            "--name",
            "mine",
            "-v",
            "data:/data",
            "busybox",
            "sleep",
            "1000",
        ],
    )
    .ok();
    assert_eq!(
        as_user(1000, &["ps", "--format", "{{.Names}}"]).ok(),
        "mine"
    );
    assert_eq!(
        as_user(1000, &["exec", "mine", "echo", "inside"]).ok(),
        "inside"
    );
    assert_eq!(as_user(1000, &["volume", "ls", "-q"]).ok(), "data");
    assert_eq!(as_user(1001, &["ps", "-a", "-q"]).ok(), "");
    assert_eq!(root(&["ps", "--format", "{{.Names}}"]), "mine\nroots");
    let epoch = std::time::UNIX_EPOCH;
    let soon = epoch.elapsed().unwrap().as_secs() + 1;
    let soon = soon.to_string();
    let past = [
        "events",
        "--since",
        "1",
        "--until",
        &soon,
        "--format",
        "{{.Actor.Attributes.name}}",
    ];
    let told = as_user(1000, &past).ok();
    assert!(told.contains("mine") && !told.contains("roots"), "{told}");
    assert_eq!(as_user(1001, &past).ok(), "");
    // Others' are not there.
    for arguments in [
        &["inspect", "--type", "container", "roots"][..],
        &["exec", "roots", "true"],
        &["logs", "roots"],
        &["rm", "roots"],
        &["cp", "roots:/etc/passwd", "-"],
        &["commit", "roots"],
        &["exec", "mine", "true"],
    ] {
        let output = as_user(1001, arguments);
        assert_ne!(output.code, 0, "{arguments:?}: {output:?}");
    }
    // Nothing that would lead out.
    for options in [
        &["--privileged"][..],
        &["--cap-add", "SYS_ADMIN"],
        &["--device", "/dev/null"],
        &["--security-opt", "seccomp=unconfined"],
        &["--network", "host"],
        &["--pid", "host"],
        &["--ipc", "host"],
        &["--uts", "host"],
        &["--cgroupns", "host"],
        &["--cgroup-parent", "/"],
        &["-v", "/:/host"],
        &["--mount", "type=bind,source=/etc,target=/x"],
        &[
            "--mount",
            "type=volume,target=/x,volume-opt=type=none,volume-opt=o=bind,volume-opt=device=/",
        ],
        &["-v", "roots-data:/x"],
        &["--volumes-from", "roots"],
        &["--network", "container:roots"],
        &["--pid", "container:roots"],
        &["--network", "roots-net"],
        &[
            "--log-driver",
            "syslog",
            "--log-opt",
            "syslog-address=udp://127.0.0.1:1",
        ],
    ] {
        let output = as_user(
            1000,
            &[
                &["run", "--rm", "--pull", "never"],
                options,
                &["busybox", "true"],
            ]
            .concat(),
        );
        assert!(output.code >= 125, "{options:?}: {output:?}");
        let told = ["authorization denied", "No such container"];
        assert!(
            told.iter().any(|text| output.stderr.contains(text)),
            "{options:?}: {output:?}"
        );
    }
    for arguments in [
        &["exec", "--privileged", "mine", "true"][..],
        &[
            "volume",
            "create",
            "--opt",
            "type=none",
            "--opt",
            "o=bind",
            "--opt",
            "device=/",
            "x",
        ],
        &["volume", "rm", "roots-data"],
        &["network", "rm", "roots-net"],
        &["rmi", "-f", "busybox"],
        &["tag", "busybox", "hello-world"],
        &["system", "df"],
    ] {
        let output = as_user(1000, arguments);
        assert!(
            output.code != 0 && output.stderr.contains("authorization denied"),
            "{arguments:?}: {output:?}"
        );
    }
    // Prunes take one's own.
    let _ = as_user(1000, &["rm", "-f", "mine"]).ok();
    root(&["stop", "-t", "0", "roots"]);
    let _ = as_user(1000, &["container", "prune", "-f"]).ok();
    let _ = as_user(1000, &["volume", "prune", "-f", "-a"]).ok();
    assert_eq!(root(&["ps", "-a", "--format", "{{.Names}}"]), "roots");
    assert_eq!(root(&["volume", "ls", "-q"]), "roots-data");
    // Outside of the group the socket is closed.
    assert_ne!(as_member(1000, 1000, &["ps"]).code, 0);
    daemon.finish();
}
