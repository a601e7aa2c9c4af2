//! Pulling: from a real registry, and from one that misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::server::{Registry, Request, answer, serve};
use common::*;
use gamut_image::{Credentials, Digest, Error, ImageStore, NoProgress, PullOptions, PullPolicy};
use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use serde_json::json;
use std::collections::HashMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The content of a registry with one image `r/x:1`.
struct Content {
    blobs: HashMap<String, Vec<u8>>,
    manifest: Vec<u8>,
}

impl Content {
    fn new(image: &TestImage) -> Self {
        let (blobs, manifest) = image.oci(&gzip);
        Self {
            blobs: blobs
                .into_iter()
                .map(|blob| (Digest::of(&blob).to_string(), blob))
                .collect(),
            manifest,
        }
    }

    fn serve(&self, request: &Request, stream: &mut TcpStream) -> std::io::Result<()> {
        let last = request.path.rsplit('/').next().unwrap();
        if request.path.contains("/manifests/")
            && (last == "1" || last == Digest::of(&self.manifest).to_string())
        {
            let kind = ("content-type", "application/vnd.oci.image.manifest.v1+json");
            return answer(stream, "200 OK", &[kind], &self.manifest);
        }
        match self.blobs.get(last) {
            Some(blob) => answer(stream, "200 OK", &[], blob),
            None if request.path == "/v2/" => answer(stream, "200 OK", &[], b"{}"),
            None => answer(
                stream,
                "404 Not Found",
                &[],
                br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            ),
        }
    }
}

fn image() -> TestImage {
    TestImage::new(vec![tar(&[("a", &noise(1, 900_000))]), tar(&[("b", b"b")])])
}

fn reference(port: u16, rest: &str) -> Reference {
    Reference::parse(&format!("127.0.0.1:{port}/{rest}")).unwrap()
}

fn pull(store: &ImageStore, port: u16, rest: &str) -> Result<gamut_image::Image, Error> {
    store.pull(&reference(port, rest), &PullOptions::default(), &NoProgress)
}

#[test]
fn a_pull_verifies_and_reports() {
    let content = Content::new(&image());
    let digest = Digest::of(&content.manifest);
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let port = serve(move |request, stream| {
        counter.fetch_add(
            usize::from(request.path.contains("/blobs/")),
            Ordering::Relaxed,
        );
        content.serve(request, stream)
    });
    let (_dir, store) = store();
    let recorder = Recorder::default();
    let name = reference(port, "r/x:1");
    let pulled = store
        .pull(&name, &PullOptions::default(), &recorder)
        .unwrap();
    assert_eq!(pulled.id, image().id());
    assert_eq!(
        pulled.repo_digests,
        [format!("127.0.0.1:{port}/r/x@{digest}")]
    );
    let text = recorder.text();
    for line in [
        "1 Pulling from r/x",
        "Pulling fs layer",
        "Downloading",
        "Verifying Checksum",
        "Download complete",
        "Extracting",
        "Pull complete",
        "- Digest: sha256:",
        "- Status: Downloaded newer image for",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert_eq!(requests.load(Ordering::Relaxed), 3);
    let recorder = Recorder::default();
    store
        .pull(&name, &PullOptions::default(), &recorder)
        .unwrap();
    assert_eq!(
        requests.load(Ordering::Relaxed),
        3,
        "nothing is fetched twice"
    );
    assert!(
        recorder.text().contains("Already exists")
            && recorder.text().contains("Image is up to date")
    );
    pull(&store, port, &format!("r/x@{digest}")).unwrap();
    let error = pull(&store, port, "r/x:2").unwrap_err();
    assert!(
        error.kind() == ErrorKind::NotFound && error.to_string().contains("manifest unknown"),
        "{error}"
    );
    let error = pull(&store, port, &format!("r/x@{}", Digest::of(b""))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let options = PullOptions {
        policy: PullPolicy::Missing,
        ..PullOptions::default()
    };
    assert!(store.pull(&name, &options, &NoProgress).is_ok());
    assert_clean(&store);
}

#[test]
fn wrong_content_leaves_nothing() {
    let good = image();
    let layer = Digest::of(&gzip(&good.layers[0])).to_string();
    type Spoil = Box<
        dyn Fn(&Request, &mut TcpStream, &Content) -> Option<std::io::Result<()>> + Send + Sync,
    >;
    let of_layer = move |request: &Request| request.path.ends_with(&layer);
    let (a, b, c, d) = (
        of_layer.clone(),
        of_layer.clone(),
        of_layer.clone(),
        of_layer.clone(),
    );
    let spoils: Vec<(&str, Spoil, &str)> = vec![
        (
            "another layer of the same size",
            Box::new(move |r, s, _| {
                a(r).then(|| {
                    let length = gzip(&image().layers[0]).len();
                    answer(s, "200 OK", &[], &noise(5, length))
                })
            }),
            "digest mismatch",
        ),
        (
            "a longer layer",
            Box::new(move |r, s, _| b(r).then(|| answer(s, "200 OK", &[], &noise(5, 2_000_000)))),
            "size mismatch",
        ),
        (
            "a longer layer of no stated length",
            Box::new(move |r, s, _| {
                c(r).then(|| {
                    s.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
                    s.write_all(&noise(5, 2_000_000))
                })
            }),
            "size mismatch",
        ),
        (
            "a missing layer",
            Box::new(move |r, s, _| d(r).then(|| answer(s, "404 Not Found", &[], b""))),
            "lacks a blob",
        ),
        (
            "another configuration",
            Box::new(|r, s, _| {
                r.path.ends_with(&image().id()).then(|| {
                    let mut config = image().config;
                    config[2] = b'X';
                    answer(s, "200 OK", &[], &config)
                })
            }),
            "digest mismatch",
        ),
        (
            "another manifest than promised",
            Box::new(|r, s, c| {
                r.path.contains("/manifests/").then(|| {
                    let wrong = Digest::of(b"").to_string();
                    answer(
                        s,
                        "200 OK",
                        &[("docker-content-digest", &wrong)],
                        &c.manifest,
                    )
                })
            }),
            "digest mismatch",
        ),
        (
            "a huge manifest",
            Box::new(|r, s, _| {
                r.path
                    .contains("/manifests/")
                    .then(|| answer(s, "200 OK", &[], &vec![b' '; 5 << 20]))
            }),
            "4 MiB",
        ),
        (
            "schema 1",
            Box::new(|r, s, _| {
                r.path
                    .contains("/manifests/")
                    .then(|| answer(s, "200 OK", &[], br#"{"schemaVersion":1,"fsLayers":[]}"#))
            }),
            "schema 1",
        ),
        (
            "no platform",
            Box::new(|r, s, _| {
                r.path.contains("/manifests/").then(|| {
            let index = json!({"schemaVersion": 2, "manifests": [{"digest": Digest::of(b"").to_string(), "size": 1, "platform": {"os": "linux", "architecture": "s390x"}}]});
            answer(s, "200 OK", &[], index.to_string().as_bytes())
        })
            }),
            "available: linux/s390x",
        ),
        (
            "a redirect to plain http elsewhere",
            Box::new(|r, s, _| {
                r.path.contains("/manifests/").then(|| {
                    answer(
                        s,
                        "307 Temporary Redirect",
                        &[("location", "http://example.com/")],
                        b"",
                    )
                })
            }),
            "loopback",
        ),
        (
            "endless redirects",
            Box::new(|r, s, _| {
                r.path
                    .contains("/manifests/")
                    .then(|| answer(s, "307 Temporary Redirect", &[("location", &r.path)], b""))
            }),
            "redirects",
        ),
    ];
    for (what, spoil, expected) in spoils {
        let content = Content::new(&good);
        let port = serve(move |request, stream| {
            spoil(request, stream, &content).unwrap_or_else(|| content.serve(request, stream))
        });
        let (_dir, store) = store();
        let error = pull(&store, port, "r/x:1").unwrap_err();
        assert!(error.to_string().contains(expected), "{what}: {error}");
        assert_empty(&store);
    }
}

#[test]
fn cut_connections_are_resumed() {
    for ranges in [true, false] {
        let content = Content::new(&image());
        let cuts = AtomicUsize::new(0);
        let resumed = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&resumed);
        let port = serve(move |request, stream| {
            let last = request.path.rsplit('/').next().unwrap();
            let Some(blob) = content.blobs.get(last).filter(|blob| blob.len() > 100_000) else {
                return content.serve(request, stream);
            };
            let range = request.headers.get("range");
            seen.lock().unwrap().push(range.cloned());
            let start: usize = range
                .filter(|_| ranges)
                .and_then(|range| {
                    range
                        .strip_prefix("bytes=")?
                        .strip_suffix('-')?
                        .parse()
                        .ok()
                })
                .unwrap_or(0);
            let rest = &blob[start..];
            let status = if start > 0 {
                "206 Partial Content"
            } else {
                "200 OK"
            };
            write!(
                stream,
                "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n",
                rest.len()
            )?;
            write!(
                stream,
                "content-range: bytes {start}-{}/{}\r\n\r\n",
                blob.len() - 1,
                blob.len()
            )?;
            let number = cuts.fetch_add(1, Ordering::Relaxed) + 1;
            let count = if number < 4 {
                rest.len().min(number * 200_000)
            } else {
                rest.len()
            };
            stream.write_all(&rest[..count])
        });
        let (_dir, store) = store();
        pull(&store, port, "r/x:1").unwrap();
        assert!(resumed.lock().unwrap().len() >= 3);
        assert!(resumed.lock().unwrap().iter().skip(1).all(Option::is_some));
        assert_clean(&store);
    }
}

#[test]
fn connections_that_stay_cut_and_busy_servers_end_in_an_error() {
    let content = Content::new(&image());
    let port = serve(move |request, stream| {
        let last = request.path.rsplit('/').next().unwrap();
        if content
            .blobs
            .get(last)
            .is_some_and(|blob| blob.len() > 100_000)
        {
            return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n");
        }
        content.serve(request, stream)
    });
    let (_dir, store) = store();
    let error = pull(&store, port, "r/x:1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_empty(&store);

    let content = Content::new(&image());
    let count = AtomicUsize::new(0);
    let port = serve(move |request, stream| {
        if request.path != "/v2/" && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            return answer(stream, "503 Service Unavailable", &[], b"");
        }
        content.serve(request, stream)
    });
    pull(&store, port, "r/x:1").unwrap();
    assert_clean(&store);
}

#[test]
fn tokens_and_logins_work_and_do_not_travel() {
    let content = Content::new(&image());
    let leaked = Arc::new(AtomicUsize::new(0));
    let leak = Arc::clone(&leaked);
    let blobs = content.blobs.clone();
    // Another host: blobs come from here, and it must not see the token.
    let other = serve(move |request, stream| {
        leak.fetch_add(
            usize::from(request.headers.contains_key("authorization")),
            Ordering::Relaxed,
        );
        let last = request.path.rsplit('/').next().unwrap();
        answer(stream, "200 OK", &[], &blobs[last])
    });
    let port_cell = Arc::new(AtomicUsize::new(0));
    let own_port = Arc::clone(&port_cell);
    let port = serve(move |request, stream| {
        let own = own_port.load(Ordering::Relaxed);
        let authorization = request.headers.get("authorization").map(String::as_str);
        if request.path.starts_with("/token?") {
            assert!(
                request.path.contains("scope=repository%3Ar%2Fx%3Apull")
                    && request.path.contains("service=reg")
            );
            return match authorization {
                Some("Basic bWU6c2VjcmV0") => answer(stream, "200 OK", &[], br#"{"token":"abc"}"#),
                _ => answer(
                    stream,
                    "401 Unauthorized",
                    &[],
                    br#"{"details":"wrong password"}"#,
                ),
            };
        }
        if authorization != Some("Bearer abc") {
            let challenge = format!(
                "Bearer realm=\"http://127.0.0.1:{own}/token\",service=\"reg\",scope=\"repository:r/x:pull\""
            );
            return answer(
                stream,
                "401 Unauthorized",
                &[("www-authenticate", &challenge)],
                b"",
            );
        }
        if request.path.contains("/blobs/") {
            let location = format!("http://127.0.0.1:{other}{}", request.path);
            return answer(
                stream,
                "307 Temporary Redirect",
                &[("location", &location)],
                b"",
            );
        }
        content.serve(request, stream)
    });
    port_cell.store(usize::from(port), Ordering::Relaxed);
    let (_dir, store) = store();
    let with = |password: &str| PullOptions {
        credentials: Some(Credentials {
            username: "me".to_owned(),
            password: password.to_owned(),
            ..Credentials::default()
        }),
        ..PullOptions::default()
    };
    let name = reference(port, "r/x:1");
    store.pull(&name, &with("secret"), &NoProgress).unwrap();
    assert_eq!(leaked.load(Ordering::Relaxed), 0);
    let error = store.pull(&name, &with("wrong"), &NoProgress).unwrap_err();
    assert!(
        error.kind() == ErrorKind::Unauthorized && error.to_string().contains("wrong password"),
        "{error}"
    );
    let error = store
        .pull(&name, &PullOptions::default(), &NoProgress)
        .unwrap_err();
    assert!(error.to_string().contains("docker login"), "{error}");
    assert_clean(&store);
}

#[test]
fn unreachable_registries_say_what_to_do() {
    let (_dir, store) = store();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let error = pull(&store, port, "x").unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    let options = PullOptions {
        insecure_loopback: false,
        ..PullOptions::default()
    };
    let plain = serve(|_, stream| answer(stream, "200 OK", &[], b""));
    let error = store
        .pull(&reference(plain, "x"), &options, &NoProgress)
        .unwrap_err();
    assert!(
        error.to_string().contains("no secure connection"),
        "{error}"
    );
}

#[test]
fn pulls_in_parallel_fetch_each_layer_once() {
    let content = Content::new(&image());
    let requests = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&requests);
    let big = Digest::of(&gzip(&image().layers[0])).to_string();
    let port = serve(move |request, stream| {
        counter.fetch_add(usize::from(request.path.ends_with(&big)), Ordering::Relaxed);
        content.serve(request, stream)
    });
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| pull(&store, port, "r/x:1").unwrap());
        }
    });
    assert_eq!(requests.load(Ordering::Relaxed), 1);
    assert_clean(&store);
}

#[test]
fn a_real_registry_serves_both_formats() {
    let (Some(registry), Ok(_)) = (
        Registry::start(),
        Command::new("skopeo").arg("--version").output(),
    ) else {
        println!("SKIPPED: docker-registry or skopeo is not installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    std::fs::write(&path, image().docker_archive(&["x:1"])).unwrap();
    for format in ["v2s2", "oci"] {
        let output = Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
                "--format",
                format,
            ])
            .arg(format!("docker-archive:{}", path.display()))
            .arg(format!("docker://127.0.0.1:{}/r/{format}:1", registry.port))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let (_dir, store) = store();
        let pulled = pull(&store, registry.port, &format!("r/{format}:1")).unwrap();
        let layers = store.layers(&pulled).unwrap();
        assert_eq!(read(&layers[1], "a"), noise(1, 900_000));
        assert_eq!(pulled.repo_digests.len(), 1);
        let by_digest = store.get(&pulled.repo_digests[0], None).unwrap();
        assert_eq!(by_digest.id, pulled.id);
        let error = pull(&store, registry.port, "r/nothere:1").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert_clean(&store);
    }
}
