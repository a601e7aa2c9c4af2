//! Registries that want a login, mirrors, and what foreign tools make of what was pushed.

use gamut_tests::{Daemon, Output, Registry, Session, has, skopeo, target_binary};
use std::fs;
use std::os::unix::fs::PermissionsExt;

const NAME: &str = "127.0.0.1:5000/team/tool:1";

fn login(daemon: &Daemon, password: &str) -> Output {
    let arguments = ["login", "-u", "me", "--password-stdin", Registry::ADDRESS];
    daemon.gamut_with_input(&arguments, password.as_bytes())
}

#[test]
fn push_and_pull_with_a_login() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let Some(registry) = Registry::start_guarded(&daemon) else {
        return;
    };
    daemon.ok(&["tag", "busybox", NAME]);
    let error = daemon.gamut(&["push", NAME]).fails(1);
    assert!(error.contains("gamut login 127.0.0.1:5000"), "{error}");
    let error = login(&daemon, "wrong").fails(1);
    assert!(error.contains("incorrect username or password"), "{error}");
    // On a terminal it asks, and does not show what is typed.
    let mut asking = daemon.spawn_on_terminal(&["login", Registry::ADDRESS]);
    asking.expect("Username: ");
    asking.write("me\n");
    asking.expect("Password: ");
    asking.write("secret\n");
    let shown = asking.wait();
    assert!(
        shown.code == 0 && shown.stdout.contains("Login Succeeded"),
        "{shown:?}"
    );
    assert!(!shown.stdout.contains("secret"), "{shown:?}");
    daemon.ok(&["logout", Registry::ADDRESS]);
    assert!(login(&daemon, "secret\n").ok().contains("Login Succeeded"));
    let file = daemon.directory().join("docker/config.json");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(
        kept.contains("127.0.0.1:5000") && kept.contains("bWU6c2VjcmV0"),
        "{kept}"
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );

    let pushed = daemon.ok(&["push", NAME]);
    assert!(
        pushed.contains("The push refers to repository [127.0.0.1:5000/team/tool]"),
        "{pushed}"
    );
    assert!(
        pushed.contains(": Pushed") && pushed.contains("1: digest: sha256:"),
        "{pushed}"
    );
    let again = daemon.ok(&["push", NAME]);
    assert!(again.contains(": Layer already exists"), "{again}");
    let digest = again
        .split("digest: ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let image = daemon.inspect(NAME);
    assert_eq!(
        image["RepoDigests"][0],
        format!("127.0.0.1:5000/team/tool@{digest}")
    );
    assert_eq!(daemon.ok(&["push", "-q", NAME]), NAME);
    // All tags at once.
    daemon.ok(&["tag", "busybox", "127.0.0.1:5000/team/tool:2"]);
    let all = daemon.ok(&["push", "-a", "127.0.0.1:5000/team/tool"]);
    assert!(
        all.contains("1: digest: sha256:") && all.contains("2: digest: sha256:"),
        "{all}"
    );
    let error = daemon
        .gamut(&["push", "127.0.0.1:5000/nothing/here"])
        .fails(1);
    assert!(
        error.contains("does not exist locally with the tag"),
        "{error}"
    );

    let second = "127.0.0.1:5000/team/tool:2";
    daemon.ok(&["rmi", "-f", "busybox", NAME, second]);
    daemon.ok(&["pull", "-a", "127.0.0.1:5000/team/tool"]);
    for tag in [NAME, second] {
        daemon.ok(&["image", "inspect", tag]);
    }
    let error = daemon.gamut(&["pull", "-a", NAME]).fails(1);
    assert!(error.contains("tag can't be used"), "{error}");
    let error = daemon.gamut(&["pull", "-a", "127.0.0.1:5000/no/thing"]);
    assert_eq!(error.code, 1, "{error:?}");
    daemon.ok(&["rmi", "-f", NAME, second]);
    let output = daemon.ok(&["run", "--rm", NAME, "cat", "/data/notes"]);
    assert_eq!(output, "notes of the image");
    let removed = daemon.ok(&["logout", Registry::ADDRESS]);
    assert_eq!(removed, "Removing login credentials for 127.0.0.1:5000");
    assert_eq!(
        daemon.ok(&["logout", Registry::ADDRESS]),
        "Not logged in to 127.0.0.1:5000"
    );
    let error = daemon.gamut(&["pull", NAME]).fails(1);
    assert!(error.contains("login"), "{error}");
    drop(registry);
    daemon.finish();
}

#[test]
fn a_credential_helper_keeps_the_secret() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let Some(registry) = Registry::start_guarded(&daemon) else {
        return;
    };
    let programs = daemon.directory().join("programs");
    fs::create_dir(&programs).unwrap();
    let vault = daemon.directory().join("vault");
    let helper = programs.join("docker-credential-vault");
    let script = format!(
        "#!/bin/sh\nvault={}\ncase $1 in\nstore) cat > $vault ;;\nget) read -r server\n  \
         [ -f $vault ] || {{ echo 'credentials not found in native keychain'; exit 1; }}\n  \
         cat $vault ;;\nerase) rm -f $vault ;;\nesac\n",
        vault.display()
    );
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let config = daemon.directory().join("docker");
    fs::create_dir(&config).unwrap();
    fs::write(
        config.join("config.json"),
        r#"{"credsStore": "vault", "kept": 1}"#,
    )
    .unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let gamut = |arguments: &[&str], input: &str| {
        let mut command = daemon.command(target_binary());
        let mut session = Session::start(command.args(arguments).env("PATH", &path));
        session.write(input);
        session.close_stdin();
        session.wait()
    };
    let arguments = ["login", "-u", "me", "--password-stdin", Registry::ADDRESS];
    assert!(gamut(&arguments, "secret").ok().contains("Login Succeeded"));
    assert!(fs::read_to_string(&vault).unwrap().contains("secret"));
    let kept = fs::read_to_string(config.join("config.json")).unwrap();
    assert!(
        !kept.contains("bWU6c2VjcmV0") && kept.contains("\"kept\": 1"),
        "{kept}"
    );
    daemon.ok(&["tag", "busybox", NAME]);
    assert!(gamut(&["push", NAME], "").ok().contains("digest: sha256:"));
    assert!(gamut(&["pull", NAME], "").ok().contains("up to date"));
    // Without the program: said so, and nothing is sent without a login instead.
    let error = daemon.gamut(&["pull", NAME]).fails(1);
    assert!(error.contains("docker-credential-vault"), "{error}");
    assert!(
        gamut(&["logout", Registry::ADDRESS], "")
            .ok()
            .starts_with("Removing")
    );
    assert!(!vault.exists());
    drop(registry);
    daemon.finish();
}

#[test]
fn the_stock_client_logs_in_pushes_and_pulls() {
    let Some(daemon) = has("docker").then(Daemon::with_busybox).flatten() else {
        return;
    };
    let Some(registry) = Registry::start_guarded(&daemon) else {
        return;
    };
    let ok = |arguments: &[&str]| daemon.docker(arguments).ok();
    ok(&["tag", "busybox", NAME]);
    let error = daemon.docker(&["push", NAME]).fails(1);
    assert!(
        error.contains("denied") || error.contains("unauthorized"),
        "{error}"
    );
    let wrong = ["login", "-u", "me", "-p", "wrong", Registry::ADDRESS];
    let error = daemon.docker(&wrong).fails(1);
    assert!(error.contains("incorrect username or password"), "{error}");
    let right = ["login", "-u", "me", "-p", "secret", Registry::ADDRESS];
    assert!(ok(&right).contains("Login Succeeded"));
    let pushed = ok(&["push", NAME]);
    assert!(
        pushed.contains("1: digest: sha256:") && pushed.contains("Pushed"),
        "{pushed}"
    );
    assert!(ok(&["push", NAME]).contains("Layer already exists"));
    ok(&["tag", "busybox", "127.0.0.1:5000/team/other:1"]);
    let mounted = ok(&["push", "127.0.0.1:5000/team/other:1"]);
    assert!(mounted.contains("Mounted from team/tool"), "{mounted}");
    // What docker keeps, gamut reads.
    daemon.ok(&["rmi", "-f", "busybox", NAME, "127.0.0.1:5000/team/other:1"]);
    assert!(daemon.ok(&["pull", NAME]).contains(NAME));
    assert!(ok(&["pull", "127.0.0.1:5000/team/other:1"]).contains("Digest: sha256:"));
    let answer = daemon.http(
        "GET",
        "/v1.41/distribution/127.0.0.1:5000/team/tool:1/json",
        "",
    );
    assert_eq!(answer.status, 401, "{}", answer.text());
    let error = daemon.docker(&["search", "127.0.0.1:5000/tool"]).fails(1);
    assert!(error.contains("no search"), "{error}");
    assert!(ok(&["logout", Registry::ADDRESS]).contains("Removing"));
    drop(registry);
    daemon.finish();
}

#[test]
fn mirrors_and_insecure_registries_are_configured_in_a_file() {
    let Some(daemon) = Daemon::with_busybox() else {
        return;
    };
    let directory = daemon.directory().to_owned();
    drop(daemon);
    let settings = std::env::temp_dir().join(format!("registries-{}.json", std::process::id()));
    let path = settings.display().to_string();
    fs::write(&settings, "{}").unwrap();
    assert!(!directory.exists());
    let Some(daemon) = Daemon::start_with(&["--registries", &path]) else {
        return;
    };
    daemon.import(gamut_tests::busybox().unwrap(), "busybox", &[]);
    let Some(registry) = Registry::start(&daemon) else {
        return;
    };
    daemon.ok(&["tag", "busybox", "127.0.0.1:5000/library/mirrored:1"]);
    daemon.ok(&["push", "127.0.0.1:5000/library/mirrored:1"]);
    daemon.ok(&["rmi", "-f", "busybox", "127.0.0.1:5000/library/mirrored:1"]);
    let reached = daemon.gamut(&["pull", "mirrored:1"]);
    assert_eq!(reached.code, 1, "{reached:?}");
    // Read for every pull: no restart.
    let text = r#"{"registries": {"docker.io": {"mirrors": ["http://127.0.0.1:5000"]}}}"#;
    fs::write(&settings, text).unwrap();
    daemon.ok(&["pull", "mirrored:1"]);
    assert_eq!(
        daemon.ok(&["run", "--rm", "mirrored:1", "echo", "here"]),
        "here"
    );
    let info = daemon.json(&["info", "--format", "json"]);
    assert_eq!(
        info["RegistryConfig"]["Mirrors"][0],
        "http://127.0.0.1:5000"
    );
    fs::write(
        &settings,
        r#"{"registries": {"docker.io": {"mirror": []}}}"#,
    )
    .unwrap();
    let error = daemon.gamut(&["pull", "mirrored:1"]).fails(1);
    assert!(error.contains(&path) && error.contains("mirror"), "{error}");
    fs::remove_file(&settings).unwrap();
    drop(registry);
    daemon.finish();
}

#[test]
fn what_was_changed_survives_foreign_tools() {
    let Some(daemon) = has("umoci").then(Daemon::with_busybox).flatten() else {
        return;
    };
    let Some(registry) = Registry::start(&daemon) else {
        return;
    };
    let script = "echo new > /srv/new; chown 12:34 /srv/new; chmod 4751 /srv/new; \
                  touch -d '2001-02-03 04:05:06' /srv/new; ln /srv/new /srv/hard; \
                  rm /etc/not-executable; rm -r /srv/site; mkdir /srv/site; echo x > /srv/site/x; \
                  rm -r /home/alice; echo file > /home/alice; mkfifo /data/pipe; ln -s new /srv/soft";
    daemon.ok(&["run", "--name", "box", "busybox", "sh", "-c", script]);
    daemon.ok(&["commit", "box", NAME]);
    daemon.ok(&["push", NAME]);
    let layout = daemon.directory().join("layout");
    let source = format!("docker://{NAME}");
    let target = format!("oci:{}:1", layout.display());
    let copy = [
        "copy",
        "--quiet",
        "--src-tls-verify=false",
        &source,
        &target,
    ];
    let _ = skopeo(&daemon, &copy).ok();
    let bundle = daemon.directory().join("bundle");
    let image = format!("{}:1", layout.display());
    let umoci = |arguments: &[&str]| {
        let mut command = daemon.command("umoci");
        let mut session = Session::start(command.args(arguments));
        session.close_stdin();
        session.wait().ok()
    };
    umoci(&["unpack", "--image", &image, &bundle.display().to_string()]);
    let root = bundle.join("rootfs");
    assert!(!root.join("etc/not-executable").exists());
    assert!(!root.join("srv/site/index.html").exists());
    assert_eq!(fs::read_to_string(root.join("srv/site/x")).unwrap(), "x\n");
    assert_eq!(
        fs::read_to_string(root.join("home/alice")).unwrap(),
        "file\n"
    );
    let new = fs::metadata(root.join("srv/new")).unwrap();
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    assert_eq!(
        (new.uid(), new.gid(), new.mode() & 0o7777),
        (12, 34, 0o4751)
    );
    assert_eq!((new.nlink(), new.mtime()), (2, 981_173_106));
    assert!(
        fs::metadata(root.join("data/pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(
        fs::read_link(root.join("srv/soft")).unwrap().to_str(),
        Some("new")
    );

    // And back: what umoci makes of further changes is a layer here.
    fs::remove_file(root.join("srv/new")).unwrap();
    fs::write(root.join("srv/by-umoci"), "by umoci\n").unwrap();
    let repacked = format!("{}:2", layout.display());
    umoci(&[
        "repack",
        "--image",
        &repacked,
        &bundle.display().to_string(),
    ]);
    let source = format!("oci:{repacked}");
    let target = "docker://127.0.0.1:5000/team/tool:2";
    let _ = skopeo(
        &daemon,
        &[
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            &source,
            target,
        ],
    )
    .ok();
    let list = "ls /srv; cat /srv/by-umoci; stat -c %h /srv/hard";
    let image = "127.0.0.1:5000/team/tool:2";
    assert_eq!(
        daemon.ok(&["run", "--rm", image, "sh", "-c", list]),
        "by-umoci\nhard\nsite\nsoft\nby umoci\n1"
    );
    drop(registry);
    daemon.finish();
}
