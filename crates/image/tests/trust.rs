//! Mirrors, certificates, insecure registries; search and inspection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::server::{Registry, Request, answer, free_port, serve};
use common::*;
use gamut_image::{
    Credentials, Digest, Distribution, Error, NoProgress, PullOptions, RegistryOptions,
    RegistrySettings, search,
};
use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use serde_json::json;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn image() -> TestImage {
    TestImage::new(vec![tar(&[("a", &noise(1, 300_000))]), tar(&[("b", b"b")])])
}

fn settings(value: &serde_json::Value) -> Arc<RegistrySettings> {
    Arc::new(RegistrySettings::parse(value.to_string().as_bytes(), "x").unwrap())
}

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// Serves the image, whatever its repository is called.
fn give(request: &Request, stream: &mut TcpStream) -> std::io::Result<()> {
    let (blobs, manifest) = image().oci(&gzip);
    let path = request.path.split('?').next().unwrap();
    let last = path.rsplit('/').next().unwrap();
    if path.contains("/manifests/") {
        let kind = ("content-type", "application/vnd.oci.image.manifest.v1+json");
        return answer(stream, "200 OK", &[kind], &manifest);
    }
    let blob = blobs
        .iter()
        .find(|blob| Digest::of(blob).to_string() == last);
    match blob {
        Some(blob) => answer(stream, "200 OK", &[], blob),
        None => answer(stream, "404 Not Found", &[], b""),
    }
}

#[test]
fn mirrors_answer_for_a_registry_that_is_out_of_reach() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let mirror = serve(move |request, stream| {
        assert!(!request.headers.contains_key("authorization"));
        log.lock().unwrap().push(request.path.clone());
        give(request, stream)
    });
    let down = free_port();
    for (key, name, namespace) in [
        ("docker.io", "busybox:1", "docker.io"),
        (
            "*",
            "registry.invalid:5000/team/tool:1",
            "registry.invalid%3A5000",
        ),
    ] {
        let options = PullOptions {
            // The credentials are the registry's own.
            credentials: Some(Credentials {
                username: "me".to_owned(),
                password: "secret".to_owned(),
                ..Credentials::default()
            }),
            settings: settings(&json!({"registries": {key: {"mirrors":
                [format!("http://127.0.0.1:{down}"), format!("http://127.0.0.1:{mirror}/hub")]}}})),
            ..PullOptions::default()
        };
        let (_dir, store) = store();
        let pulled = store.pull(&reference(name), &options, &NoProgress).unwrap();
        assert_eq!(pulled.id, image().id());
        assert_eq!(pulled.repo_tags, [name]);
        assert_clean(&store);
        let asked = seen.lock().unwrap().drain(..).collect::<Vec<_>>();
        assert!(asked.len() >= 4, "{asked:?}");
        let repository = reference(name).repository().to_owned();
        for path in asked {
            assert!(
                path.starts_with(&format!("/v2/hub/{repository}/")),
                "{path}"
            );
            assert!(path.ends_with(&format!("?ns={namespace}")), "{path}");
        }
        let found = Distribution::inspect(&reference(name), &options).unwrap();
        assert_eq!(found.platforms.len(), 1);
        seen.lock().unwrap().clear();
    }
}

#[test]
fn what_a_mirror_lacks_or_spoils_comes_from_the_registry() {
    let origin_blobs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&origin_blobs);
    let origin = serve(move |request, stream| {
        counter.fetch_add(
            usize::from(request.path.contains("/blobs/")),
            Ordering::SeqCst,
        );
        give(request, stream)
    });
    type Spoil = fn(&Request, &mut TcpStream) -> std::io::Result<()>;
    let spoils: [(&str, Spoil); 4] = [
        ("nothing", |_, stream| {
            answer(stream, "404 Not Found", &[], b"")
        }),
        ("no HTTP", |_, stream| {
            std::io::Write::write_all(stream, b"\0\0\r\n\r\n")
        }),
        ("wrong layers", |request, stream| {
            if request.path.contains("/blobs/") {
                let length = gzip(&image().layers[0]).len();
                return answer(stream, "200 OK", &[], &noise(9, length));
            }
            give(request, stream)
        }),
        ("a redirect away", |_, stream| {
            let header = [("location", "http://example.com/")];
            answer(stream, "307 Temporary Redirect", &header, b"")
        }),
    ];
    for (what, spoil) in spoils {
        let mirror = serve(spoil);
        let options = PullOptions {
            settings: settings(&json!({"registries":
                {"*": {"mirrors": [format!("http://127.0.0.1:{mirror}")]}}})),
            ..PullOptions::default()
        };
        let (_dir, store) = store();
        let name = format!("127.0.0.1:{origin}/r/x:1");
        let pulled = store.pull(&reference(&name), &options, &NoProgress);
        let pulled = pulled.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(pulled.id, image().id(), "{what}");
        assert!(origin_blobs.swap(0, Ordering::SeqCst) >= 2, "{what}");
        assert_clean(&store);
    }
}

fn openssl(directory: &Path, line: &str) {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(directory)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {line}: {error}");
}

/// An authority `ca` and by it `server`, for 127.0.0.1, and `client`.
fn certificates(directory: &Path) {
    openssl(
        directory,
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=Authority \
         -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.crt",
    );
    for (name, extension) in [
        ("server", "subjectAltName=IP:127.0.0.1"),
        ("client", "extendedKeyUsage=clientAuth"),
    ] {
        std::fs::write(directory.join("extension"), extension).unwrap();
        openssl(
            directory,
            &format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout \
                 {name}.key -out {name}.csr"
            ),
        );
        openssl(
            directory,
            &format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
                 -extfile extension -out {name}.pem"
            ),
        );
    }
}

#[test]
fn certificates_of_a_directory_are_what_counts() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("SKIPPED: openssl is not installed");
        return;
    }
    let keys = tempfile::tempdir().unwrap();
    certificates(keys.path());
    let key = |name: &str| keys.path().join(name).display().to_string();
    let tls = |more: &str| {
        format!(
            "  tls:\n    certificate: {}\n    key: {}\n{more}",
            key("server.pem"),
            key("server.key")
        )
    };
    let Some(registry) = Registry::start_with(&tls(""), |_| String::new()) else {
        println!("SKIPPED: docker-registry is not installed");
        return;
    };
    let strict = format!("    clientcas:\n      - {}\n", key("ca.crt"));
    let guarded = Registry::start_with(&tls(&strict), |_| String::new()).unwrap();

    let (dir, store) = store();
    store
        .load(&image().docker_archive(&["x:1"])[..], &NoProgress)
        .unwrap();
    let directory = dir.path().join("certs.d");
    let with = |insecure_loopback, more: serde_json::Value| RegistryOptions {
        insecure_loopback,
        settings: settings(&json!({"certificates": [directory], "registries": more})),
        ..RegistryOptions::default()
    };
    let push = |port: u16, options: &RegistryOptions| -> Result<(), Error> {
        let name = reference(&format!("127.0.0.1:{port}/r/x:1"));
        store.tag("x:1", &name).unwrap();
        store.push(&name, options, &NoProgress).map(drop)
    };
    let place = |port: u16, files: &[(&str, &str)]| {
        let host = directory.join(format!("127.0.0.1:{port}"));
        std::fs::create_dir_all(&host).unwrap();
        for (from, to) in files {
            std::fs::copy(keys.path().join(from), host.join(to)).unwrap();
        }
    };
    // Not trusted, and not on trust.
    let error = push(registry.port, &with(false, json!({}))).unwrap_err();
    assert!(
        error.to_string().contains("no secure connection"),
        "{error}"
    );
    assert!(error.to_string().contains("certs.d"), "{error}");
    // On this machine, or by the administrator's word, any certificate will do.
    push(registry.port, &with(true, json!({}))).unwrap();
    let network = json!({"127.0.0.0/8": {"insecure": true}});
    push(registry.port, &with(false, network)).unwrap();
    // By its authority.
    place(registry.port, &[("ca.crt", "ca.crt")]);
    push(registry.port, &with(false, json!({}))).unwrap();
    // Who names an authority wants it asked, here as elsewhere.
    openssl(
        keys.path(),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=Other \
         -keyout other.key -out other.crt",
    );
    place(registry.port, &[("other.crt", "ca.crt")]);
    let error = push(registry.port, &with(true, json!({}))).unwrap_err();
    assert!(
        error.to_string().contains("no secure connection"),
        "{error}"
    );
    // A registry that wants to know its clients.
    place(guarded.port, &[("ca.crt", "ca.crt")]);
    assert!(push(guarded.port, &with(false, json!({}))).is_err());
    place(guarded.port, &[("client.pem", "client.cert")]);
    let error = push(guarded.port, &with(false, json!({}))).unwrap_err();
    assert!(error.to_string().contains("client.key"), "{error}");
    place(guarded.port, &[("client.key", "client.key")]);
    push(guarded.port, &with(false, json!({}))).unwrap();
    // And pulls by the same.
    let options = PullOptions {
        insecure_loopback: false,
        settings: with(false, json!({})).settings,
        ..PullOptions::default()
    };
    let (_dir, second) = common::store();
    let name = reference(&format!("127.0.0.1:{}/r/x:1", guarded.port));
    let pulled = second.pull(&name, &options, &NoProgress).unwrap();
    assert_eq!(pulled.id, image().id());
}

#[test]
fn insecure_registries_may_do_without_tls() {
    let port = serve(give);
    let name = reference(&format!("127.0.0.1:{port}/r/x:1"));
    let with = |value: &serde_json::Value| PullOptions {
        insecure_loopback: false,
        settings: settings(value),
        ..PullOptions::default()
    };
    let (_dir, store) = store();
    let error = store
        .pull(&name, &with(&json!({})), &NoProgress)
        .unwrap_err();
    assert!(
        error.to_string().contains("no secure connection"),
        "{error}"
    );
    for key in [format!("127.0.0.1:{port}"), "127.0.0.0/8".to_owned()] {
        let options = with(&json!({"registries": {key: {"insecure": true}}}));
        let pulled = store.pull(&name, &options, &NoProgress).unwrap();
        assert_eq!(pulled.id, image().id());
    }
}

#[test]
fn searches_ask_the_registry_named() {
    let port = serve(|request, stream| {
        assert_eq!(request.path, "/v1/search?q=team%2Ftool&n=7");
        if request.headers.get("authorization").map(String::as_str) != Some("Basic bWU6c2VjcmV0") {
            let header = [("www-authenticate", "Basic realm=\"x\"")];
            return answer(stream, "401 Unauthorized", &header, b"");
        }
        let text = json!({"num_results": 2, "results": [
            {"name": "team/tool", "description": "a\u{1b}tool", "star_count": 3, "is_official": true},
            {"name": "other", "description": null},
        ]});
        answer(
            stream,
            "200 OK",
            &[("content-type", "application/json")],
            text.to_string().as_bytes(),
        )
    });
    let options = RegistryOptions::default();
    let term = format!("127.0.0.1:{port}/team/tool");
    assert!(search(&term, 7, &options).is_err());
    let known = RegistryOptions {
        credentials: Some(Credentials {
            username: "me".to_owned(),
            password: "secret".to_owned(),
            ..Credentials::default()
        }),
        ..RegistryOptions::default()
    };
    let found = search(&term, 7, &known).unwrap();
    assert_eq!(found.len(), 2);
    assert!(found[0].is_official && found[0].star_count == 3 && found[1].description.is_empty());
    let port = serve(|_, stream| answer(stream, "404 Not Found", &[], b"404 page not found"));
    let error = search(&format!("127.0.0.1:{port}/x"), 7, &options).unwrap_err();
    assert!(
        error.kind() == ErrorKind::NotFound && error.to_string().contains("no search"),
        "{error}"
    );
    let port = serve(|_, stream| answer(stream, "200 OK", &[], b"<html>"));
    let error = search(&format!("127.0.0.1:{port}/x"), 7, &options).unwrap_err();
    assert!(error.to_string().contains("no list"), "{error}");
    let error = search(&format!("127.0.0.1:{}/x", free_port()), 7, &options).unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn indexes_are_kept_and_inspected() {
    let (_, manifest) = image().oci(&gzip);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let entry = |digest: &str, size: usize, architecture: &str| {
        json!({"mediaType": kind, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&Digest::of(&manifest).to_string(), manifest.len(), "amd64"),
            entry(&Digest::of(b"other").to_string(), 5, "s390x")]})
    .to_string();
    let digest = Digest::of(index.as_bytes());
    let port = serve(move |request, stream| {
        if request.path.ends_with("/manifests/1") {
            return answer(stream, "200 OK", &[], index.as_bytes());
        }
        give(request, stream)
    });
    let name = reference(&format!("127.0.0.1:{port}/r/x:1"));
    let options = PullOptions {
        platform: Some("linux/amd64".parse().unwrap()),
        ..PullOptions::default()
    };
    let found = Distribution::inspect(&name, &options).unwrap();
    let platforms: Vec<String> = found.platforms.iter().map(ToString::to_string).collect();
    assert_eq!(platforms, ["linux/amd64", "linux/s390x"]);
    assert_eq!(found.descriptor.digest, digest);
    let (_dir, store) = store();
    let pulled = store.pull(&name, &options, &NoProgress).unwrap();
    let kept = store.root().join("blobs/sha256").join(digest.hex());
    assert!(kept.is_file());
    assert_clean(&store);
    std::fs::remove_file(&kept).unwrap();
    let findings = format!("{:?}", store.fsck(true).unwrap());
    assert!(findings.contains("a document kept with"), "{findings}");
    assert_clean(&store);
    store.pull(&name, &options, &NoProgress).unwrap();
    assert!(kept.is_file(), "it comes back");
    store.remove(&pulled.id, true, &|_| false).unwrap();
    assert!(!kept.exists());
    assert_empty(&store);
}
