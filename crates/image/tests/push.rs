//! Pushing: to a real registry, through cuts and logins, and to one that misbehaves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::server::{Registry, Request, answer, cutting_proxy, serve};
use common::*;
use gamut_image::{
    Credentials, Digest, Error, ImageStore, NoProgress, PullOptions, Pushed, RegistryOptions, login,
};
use gamut_spec::error::ErrorKind;
use gamut_spec::reference::Reference;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn image() -> TestImage {
    TestImage::new(vec![
        tar(&[("a", &noise(1, 3_000_000))]),
        tar(&[("b", b"b")]),
        tar(&[("c", &b"compresses well".repeat(1000))]),
    ])
}

fn reference(port: u16, rest: &str) -> Reference {
    Reference::parse(&format!("127.0.0.1:{port}/{rest}")).unwrap()
}

/// A store with the image, its layers plain as `docker save` gives them, as `x:1`.
fn loaded() -> (tempfile::TempDir, ImageStore) {
    let (dir, store) = store();
    let archive = image().docker_archive(&["x:1"]);
    store.load(&archive[..], &NoProgress).unwrap();
    (dir, store)
}

fn push_as(store: &ImageStore, port: u16, rest: &str) -> Result<Pushed, Error> {
    let name = reference(port, rest);
    store.tag("x:1", &name).unwrap();
    store.push(&name, &RegistryOptions::default(), &NoProgress)
}

fn skopeo(arguments: &[&str]) -> Option<String> {
    let output = Command::new("skopeo")
        .arg("--insecure-policy")
        .args(arguments)
        .output()
        .ok()?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn registry() -> Option<Registry> {
    let registry = Registry::start();
    if registry.is_none() {
        println!("SKIPPED: docker-registry is not installed");
    }
    registry
}

/// What is pulled from a registry is the image.
fn assert_there(port: u16, rest: &str, options: &PullOptions) -> String {
    let (_dir, store) = store();
    let pulled = store
        .pull(&reference(port, rest), options, &NoProgress)
        .unwrap();
    assert_eq!(pulled.id, image().id());
    let layers = store.layers(&pulled).unwrap();
    assert_eq!(read(&layers[2], "a"), noise(1, 3_000_000));
    pulled.repo_digests[0]
        .rsplit('@')
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn a_push_is_whole_repeatable_and_sends_nothing_twice() {
    let Some(registry) = registry() else { return };
    let port = registry.port;
    let (_dir, store) = loaded();
    let name = reference(port, "r/x:1");
    store.tag("x:1", &name).unwrap();
    let recorder = Recorder::default();
    let options = RegistryOptions::default();
    let pushed = store.push(&name, &options, &recorder).unwrap();
    let text = recorder.text();
    for line in [
        &format!("- The push refers to repository [127.0.0.1:{port}/r/x]"),
        "Preparing",
        "Pushing",
        "Pushed",
        &format!("- 1: digest: {} size: {}", pushed.digest, pushed.size_bytes),
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert_eq!(
        assert_there(port, "r/x:1", &PullOptions::default()),
        pushed.digest.to_string()
    );
    let digests = store.get("x:1", None).unwrap().repo_digests;
    assert_eq!(digests, [format!("127.0.0.1:{port}/r/x@{}", pushed.digest)]);
    assert_clean(&store);

    // Once more: everything is there.
    let recorder = Recorder::default();
    assert_eq!(store.push(&name, &options, &recorder).unwrap(), pushed);
    let text = recorder.text();
    assert_eq!(text.matches("Layer already exists").count(), 3, "{text}");
    assert!(!text.contains("Pushing"), "{text}");

    // To another repository: mounted from the first.
    let recorder = Recorder::default();
    let other = reference(port, "other:2");
    store.tag("x:1", &other).unwrap();
    let again = store.push(&other, &options, &recorder).unwrap();
    assert_eq!(again.digest, pushed.digest);
    let text = recorder.text();
    assert_eq!(text.matches("Mounted from r/x").count(), 3, "{text}");
    assert_there(port, "other:2", &PullOptions::default());

    // Another store compresses to the same bytes.
    let (_dir, second) = loaded();
    assert_eq!(
        push_as(&second, port, "third:1").unwrap().digest,
        pushed.digest
    );

    // Foreign eyes: an OCI image of gzip layers.
    let url = format!("docker://127.0.0.1:{port}/r/x:1");
    if let Some(raw) = skopeo(&["inspect", "--raw", "--tls-verify=false", &url]) {
        let manifest: Value = serde_json::from_str(&raw).unwrap();
        assert_eq!(
            manifest["mediaType"],
            "application/vnd.oci.image.manifest.v1+json"
        );
        for layer in manifest["layers"].as_array().unwrap() {
            assert_eq!(
                layer["mediaType"],
                "application/vnd.oci.image.layer.v1.tar+gzip"
            );
        }
        let out = store.root().parent().unwrap().join("copy");
        let target = format!("dir:{}", out.display());
        skopeo(&["copy", "--quiet", "--src-tls-verify=false", &url, &target]).unwrap();
    }
}

#[test]
fn what_came_from_a_registry_keeps_its_digest() {
    let Some(registry) = registry() else { return };
    let port = registry.port;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.tar");
    std::fs::write(&path, image().docker_archive(&["x:1"])).unwrap();
    for format in ["v2s2", "oci"] {
        let from = format!("docker-archive:{}", path.display());
        let to = format!("docker://127.0.0.1:{port}/from/{format}:1");
        let copy = [
            "copy",
            "--quiet",
            "--dest-tls-verify=false",
            "--format",
            format,
            &from,
            &to,
        ];
        if skopeo(&copy).is_none() {
            println!("SKIPPED: skopeo is not installed");
            return;
        }
        let (_dir, store) = store();
        let from = reference(port, &format!("from/{format}:1"));
        let pulled = store
            .pull(&from, &PullOptions::default(), &NoProgress)
            .unwrap();
        let digest = pulled.repo_digests[0]
            .rsplit('@')
            .next()
            .unwrap()
            .to_owned();
        let to = reference(port, &format!("to/{format}:1"));
        store.tag(&from.to_string(), &to).unwrap();
        let pushed = store
            .push(&to, &RegistryOptions::default(), &NoProgress)
            .unwrap();
        assert_eq!(pushed.digest.to_string(), digest, "{format}");
        assert_clean(&store);
    }
}

#[test]
fn plain_layers_stay_plain_and_keep_their_manifest() {
    // The layout's own manifest names plain layers; the large one is not stored as an archive.
    let (_dir, store) = store();
    let archive = image().oci_archive("docker.io/library/x:1", &<[u8]>::to_vec);
    store.load(&archive[..], &NoProgress).unwrap();
    let (_, manifest) = image().oci(&<[u8]>::to_vec);
    let memory = Arc::new(Memory::default());
    let known = Arc::clone(&memory);
    let behind = serve(move |request, stream| known.serve(request, stream));
    // Cut on the way: the archive is put together again from where it stopped.
    let (port, cuts) = cutting_proxy(behind, usize::MAX, 1_200_000);
    let pushed = push_as(&store, port, "x:1").unwrap();
    assert_eq!(cuts.load(Ordering::SeqCst), 2);
    assert_eq!(pushed.digest, Digest::of(&manifest));
    let blobs = memory.blobs.lock().unwrap();
    for layer in image().layers {
        assert!(blobs[&Digest::of(&layer).to_string()] == layer);
    }
    assert_clean(&store);
}

#[test]
fn cut_uploads_go_on() {
    let Some(registry) = registry() else { return };
    let (_dir, store) = loaded();
    // Debian's registry forgets what came of a cut request: the layer is sent from its beginning.
    let (port, cuts) = cutting_proxy(registry.port, 3, 700_000);
    push_as(&store, port, "r/x:1").unwrap();
    assert_eq!(cuts.load(Ordering::SeqCst), 3);
    assert_there(registry.port, "r/x:1", &PullOptions::default());
    assert_clean(&store);

    // One that remembers: no connection lives long enough for the whole layer, but all together.
    let (_dir, store) = loaded();
    let memory = Arc::new(Memory::default());
    let known = Arc::clone(&memory);
    let behind = serve(move |request, stream| known.serve(request, stream));
    let (port, cuts) = cutting_proxy(behind, usize::MAX, 1_200_000);
    let pushed = push_as(&store, port, "x:1").unwrap();
    assert_eq!(cuts.load(Ordering::SeqCst), 2);
    let manifest = memory.manifests.lock().unwrap()["1"].clone();
    assert_eq!(Digest::of(&manifest), pushed.digest);
    assert_eq!(memory.blobs.lock().unwrap().len(), 4);
    assert_clean(&store);

    // One that is never let through ends in an error, and nothing is noted.
    let (_dir, store) = loaded();
    let (port, _) = cutting_proxy(registry.port, usize::MAX, 0);
    let error = push_as(&store, port, "r/never:1").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(store.get("x:1", None).unwrap().repo_digests.is_empty());
    assert_clean(&store);
}

/// "me" and "secret", as `htpasswd -B` writes them.
const HTPASSWD: &str = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

fn me(password: &str) -> Option<Credentials> {
    Some(Credentials {
        username: "me".to_owned(),
        password: password.to_owned(),
        ..Credentials::default()
    })
}

#[test]
fn basic_logins_are_asked_for_and_checked() {
    let guarded = Registry::start_with("", |dir| {
        let file = dir.join("htpasswd");
        std::fs::write(&file, HTPASSWD).unwrap();
        let path = file.display();
        format!("auth:\n  htpasswd:\n    realm: here\n    path: {path}\n")
    });
    let Some(registry) = guarded else {
        println!("SKIPPED: docker-registry is not installed");
        return;
    };
    let (_dir, store) = loaded();
    let name = reference(registry.port, "r/x:1");
    store.tag("x:1", &name).unwrap();
    let with = |credentials| RegistryOptions {
        credentials,
        ..RegistryOptions::default()
    };
    for (credentials, expected) in [(None, "docker login"), (me("wrong"), "does not accept")] {
        let error = store
            .push(&name, &with(credentials.clone()), &NoProgress)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        let server = format!("http://127.0.0.1:{}/v2/", registry.port);
        let error = login(&server, &with(credentials)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    }
    store.push(&name, &with(me("secret")), &NoProgress).unwrap();
    let server = format!("127.0.0.1:{}", registry.port);
    let logged_in = login(&server, &with(me("secret"))).unwrap();
    assert_eq!(logged_in.identity_token, None);
    let options = PullOptions {
        credentials: me("secret"),
        ..PullOptions::default()
    };
    assert_there(registry.port, "r/x:1", &options);
}

/// A registry in memory that takes anything from whoever has the token.
#[derive(Default)]
struct Memory {
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    /// By number of the session.
    uploads: Mutex<Vec<Vec<u8>>>,
    manifests: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Memory {
    /// Opens an upload; returns where.
    fn open(&self) -> String {
        let mut uploads = self.uploads.lock().unwrap();
        uploads.push(Vec::new());
        format!("/v2/upload/{}?a=b", uploads.len() - 1)
    }

    fn serve(&self, request: &Request, stream: &mut TcpStream) -> std::io::Result<()> {
        let path = request.path.split('?').next().unwrap();
        let last = path.rsplit('/').next().unwrap().to_owned();
        match (request.method.as_str(), path.contains("/manifests/")) {
            ("PUT", true) => {
                let digest = Digest::of(&request.body).to_string();
                self.manifests
                    .lock()
                    .unwrap()
                    .insert(last, request.body.clone());
                let header = [("docker-content-digest", digest.as_str())];
                answer(stream, "201 Created", &header, b"")
            }
            ("POST", _) => {
                let location = self.open();
                answer(stream, "202 Accepted", &[("location", &location)], b"")
            }
            ("PATCH", _) => {
                let number: usize = last.parse().unwrap();
                let upload = &mut self.uploads.lock().unwrap()[number];
                let start = request.headers.get("content-range");
                let start = start.map_or("0", |range| range.split('-').next().unwrap());
                assert_eq!(start, upload.len().to_string());
                upload.extend(&request.body);
                let location = format!("/v2/upload/{number}?a=c");
                answer(stream, "202 Accepted", &[("location", &location)], b"")
            }
            ("PUT", false) => {
                let number: usize = last.parse().unwrap();
                let blob = self.uploads.lock().unwrap()[number].clone();
                let digest = Digest::of(&blob).to_string();
                let wanted = digest.replace(':', "%3A");
                if !request.path.ends_with(&format!("?a=c&digest={wanted}")) {
                    return answer(stream, "400 Bad Request", &[], b"");
                }
                self.blobs.lock().unwrap().insert(digest, blob);
                answer(stream, "201 Created", &[], b"")
            }
            ("GET", false) if path.starts_with("/v2/upload/") => {
                let number: usize = last.parse().unwrap();
                let length = self.uploads.lock().unwrap()[number].len();
                let range = format!("0-{}", length.saturating_sub(1));
                answer(stream, "204 No Content", &[("range", &range)], b"")
            }
            _ if self.blobs.lock().unwrap().contains_key(&last) => {
                answer(stream, "200 OK", &[], b"")
            }
            _ => answer(stream, "404 Not Found", &[], b""),
        }
    }
}

#[test]
fn tokens_are_asked_for_by_what_is_done() {
    let small = TestImage::new(vec![tar(&[("b", b"b")])]);
    let (_dir, store) = store();
    store
        .load(&small.docker_archive(&["x:1"])[..], &NoProgress)
        .unwrap();
    let memory = Arc::new(Memory::default());
    let own_port = Arc::new(AtomicUsize::new(0));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (known, own, seen) = (
        Arc::clone(&memory),
        Arc::clone(&own_port),
        Arc::clone(&asked),
    );
    let port = serve(move |request, stream| {
        let authorization = request
            .headers
            .get("authorization")
            .map_or("", String::as_str);
        if request.path.starts_with("/token") {
            let body = String::from_utf8(request.body.clone()).unwrap();
            let line = format!("{} {} {body}", request.method, request.path);
            seen.lock().unwrap().push(line.clone());
            let good = authorization == "Basic bWU6c2VjcmV0"
                || body.contains("password=secret")
                || body.contains("refresh_token=stands-for-it");
            return if good {
                let refresh = if body.contains("access_type=offline") {
                    r#","refresh_token":"stands-for-it""#
                } else {
                    ""
                };
                let text = format!(r#"{{"access_token":"good"{refresh}}}"#);
                answer(stream, "200 OK", &[], text.as_bytes())
            } else {
                answer(stream, "401 Unauthorized", &[], br#"{"details":"no"}"#)
            };
        }
        if authorization != "Bearer good" {
            let own = own.load(Ordering::SeqCst);
            let challenge =
                format!(r#"Bearer realm="http://127.0.0.1:{own}/token",service="here""#);
            return answer(
                stream,
                "401 Unauthorized",
                &[("www-authenticate", &challenge)],
                b"",
            );
        }
        match request.path.as_str() {
            "/v2/" => answer(stream, "200 OK", &[], b""),
            _ => known.serve(request, stream),
        }
    });
    own_port.store(usize::from(port), Ordering::SeqCst);
    let with = |credentials| RegistryOptions {
        credentials,
        ..RegistryOptions::default()
    };
    let name = reference(port, "team/x:1");
    store.tag("x:1", &name).unwrap();
    let pushed = store.push(&name, &with(me("secret")), &NoProgress).unwrap();
    let manifest = memory.manifests.lock().unwrap()["1"].clone();
    assert_eq!(Digest::of(&manifest), pushed.digest);
    assert_eq!(memory.blobs.lock().unwrap().len(), 2);
    assert_eq!(
        asked.lock().unwrap().drain(..).collect::<Vec<_>>(),
        ["GET /token?service=here&scope=repository%3Ateam%2Fx%3Apull%2Cpush&account=me "]
    );

    // A login gives a token that stands for the password, and is enough from then on.
    let server = format!("127.0.0.1:{port}");
    let logged_in = login(&server, &with(me("secret"))).unwrap();
    assert_eq!(logged_in.identity_token.as_deref(), Some("stands-for-it"));
    let asked_login = asked.lock().unwrap().pop().unwrap();
    assert!(
        asked_login.starts_with("POST /token grant_type=password&access_type=offline&username=me"),
        "{asked_login}"
    );
    let identity = Credentials {
        identity_token: logged_in.identity_token,
        ..Credentials::default()
    };
    store
        .push(&name, &with(Some(identity)), &NoProgress)
        .unwrap();
    let line = asked.lock().unwrap().pop().unwrap();
    assert!(
        line.contains("grant_type=refresh_token") && !line.contains("secret"),
        "{line}"
    );
    let error = login(&server, &with(me("wrong"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

#[test]
fn uploads_elsewhere_do_not_take_the_login_along() {
    let small = TestImage::new(vec![tar(&[("b", b"b")])]);
    let (_dir, store) = store();
    store
        .load(&small.docker_archive(&["x:1"])[..], &NoProgress)
        .unwrap();
    let memory = Arc::new(Memory::default());
    let leaked = Arc::new(AtomicUsize::new(0));
    let uploads = Arc::new(AtomicUsize::new(0));
    let (known, leak, count) = (
        Arc::clone(&memory),
        Arc::clone(&leaked),
        Arc::clone(&uploads),
    );
    let elsewhere = serve(move |request, stream| {
        leak.fetch_add(
            usize::from(request.headers.contains_key("authorization")),
            Ordering::SeqCst,
        );
        count.fetch_add(1, Ordering::SeqCst);
        known.serve(request, stream)
    });
    let known = Arc::clone(&memory);
    let port = serve(move |request, stream| {
        if request.headers.get("authorization").map(String::as_str) != Some("Basic bWU6c2VjcmV0") {
            let header = [("www-authenticate", "Basic realm=\"x\"")];
            return answer(stream, "401 Unauthorized", &header, b"");
        }
        if request.method == "POST" {
            let location = format!("http://127.0.0.1:{elsewhere}{}", known.open());
            return answer(stream, "202 Accepted", &[("location", &location)], b"");
        }
        known.serve(request, stream)
    });
    let name = reference(port, "x:1");
    store.tag("x:1", &name).unwrap();
    let options = RegistryOptions {
        credentials: me("secret"),
        ..RegistryOptions::default()
    };
    store.push(&name, &options, &NoProgress).unwrap();
    assert_eq!(uploads.load(Ordering::SeqCst), 4);
    assert_eq!(leaked.load(Ordering::SeqCst), 0);
}

#[test]
fn hostile_registries_get_nothing_and_change_nothing() {
    type Spoil = Box<dyn Fn(&Request, &mut TcpStream) -> Option<std::io::Result<()>> + Send + Sync>;
    let challenge = |realm: &'static str| -> Spoil {
        Box::new(move |_, s| {
            let text = format!("Bearer realm=\"{realm}\",service=\"x\"");
            Some(answer(
                s,
                "401 Unauthorized",
                &[("www-authenticate", &text)],
                b"",
            ))
        })
    };
    let spoils: Vec<(&str, Spoil, &str)> = vec![
        (
            "a token server in the clear",
            challenge("http://example.com/token"),
            "loopback",
        ),
        (
            "a token server of another kind",
            challenge("ftp://127.0.0.1/token"),
            "only http",
        ),
        (
            "a token server with a name in it",
            challenge("http://a:b@127.0.0.1/"),
            "plain host",
        ),
        (
            "an upload in the clear",
            Box::new(|r, s| {
                (r.method == "POST").then(|| {
                    let header = [("location", "http://example.com/up")];
                    answer(s, "202 Accepted", &header, b"")
                })
            }),
            "loopback",
        ),
        (
            "an upload nowhere",
            Box::new(|r, s| (r.method == "POST").then(|| answer(s, "202 Accepted", &[], b""))),
            "no place",
        ),
        (
            "another manifest than sent",
            Box::new(|r, s| {
                (r.method == "PUT" && r.path.contains("/manifests/")).then(|| {
                    let wrong = Digest::of(b"").to_string();
                    answer(s, "201 Created", &[("docker-content-digest", &wrong)], b"")
                })
            }),
            "digest mismatch",
        ),
        (
            "a refusal",
            Box::new(|r, s| {
                (r.method == "POST").then(|| {
                    let text = br#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#;
                    answer(s, "403 Forbidden", &[], text)
                })
            }),
            "not yours",
        ),
        (
            "endless redirects",
            Box::new(|r, s| {
                let header = [("location", r.path.as_str())];
                Some(answer(s, "307 Temporary Redirect", &header, b""))
            }),
            "redirects",
        ),
    ];
    for (what, spoil, expected) in spoils {
        let (_dir, store) = loaded();
        let memory = Memory::default();
        let port = serve(move |request, stream| {
            spoil(request, stream).unwrap_or_else(|| memory.serve(request, stream))
        });
        let error = push_as(&store, port, "x:1").unwrap_err();
        assert!(error.to_string().contains(expected), "{what}: {error}");
        assert!(
            store.get("x:1", None).unwrap().repo_digests.is_empty(),
            "{what}"
        );
        assert_clean(&store);
    }
    // A token without end.
    let port = serve(|request, stream| {
        if request.path.starts_with("/token") {
            return answer(stream, "200 OK", &[], &vec![b' '; 1 << 20]);
        }
        let own = request.headers["host"].clone();
        let text = format!("Bearer realm=\"http://{own}/token\"");
        answer(
            stream,
            "401 Unauthorized",
            &[("www-authenticate", &text)],
            b"",
        )
    });
    let (_dir, store) = loaded();
    let error = push_as(&store, port, "x:1").unwrap_err();
    assert!(error.to_string().contains("256 KiB"), "{error}");
}

#[test]
fn referrers_travel_with_their_image() {
    let image = TestImage::new(vec![tar(&[("b", b"b")])]);
    let (mut blobs, manifest) = image.oci(&gzip);
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let pointer = |bytes: &[u8], kind: &str| json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()});
    let sbom = b"{\"spdxVersion\": \"SPDX-2.3\"}".to_vec();
    let referrer = |subject: &[u8], artifact: &str, blob: &[u8]| {
        serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": kind, "artifactType": artifact,
            "config": pointer(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [pointer(blob, "application/spdx+json")], "subject": pointer(subject, kind),
        }))
        .unwrap()
    };
    let bill = referrer(&manifest, "application/spdx+json", &sbom);
    let signature = referrer(&bill, "application/x.signature", b"signed");
    let mut named = pointer(&manifest, kind);
    named["annotations"] = json!({"io.containerd.image.name": "docker.io/library/x:1"});
    let index = json!({"schemaVersion": 2, "manifests":
        [pointer(&signature, kind), named, pointer(&bill, kind)]});
    blobs.extend([
        manifest.clone(),
        bill.clone(),
        signature.clone(),
        sbom,
        b"{}".to_vec(),
        b"signed".to_vec(),
    ]);
    let mut files = vec![("index.json".to_owned(), index.to_string().into_bytes())];
    for blob in &blobs {
        files.push((
            format!("blobs/sha256/{}", Digest::of(blob).hex()),
            blob.clone(),
        ));
    }
    let (_dir, first) = store();
    assert_eq!(
        first.load(&archive(&files)[..], &NoProgress).unwrap(),
        ["x:1"]
    );
    assert_clean(&first);
    let mut saved = Vec::new();
    first.save(&["x:1"], &mut saved).unwrap();
    let (_dir, second) = store();
    assert_eq!(second.load(&saved[..], &NoProgress).unwrap(), ["x:1"]);
    assert_clean(&second);
    assert_eq!(second.get("x:1", None).unwrap().id, image.id());

    let memory = Arc::new(Memory::default());
    let known = Arc::clone(&memory);
    let port = serve(move |request, stream| known.serve(request, stream));
    let pushed = push_as(&second, port, "x:1").unwrap();
    assert_eq!(pushed.digest, Digest::of(&manifest), "as it came");
    let manifests = memory.manifests.lock().unwrap();
    for document in [&bill, &signature] {
        assert_eq!(&manifests[&Digest::of(document).to_string()], document);
    }
    let blobs = memory.blobs.lock().unwrap();
    assert!(blobs.contains_key(&Digest::of(b"signed").to_string()));
    drop((manifests, blobs));
    // They go when the image goes.
    for store in [&first, &second] {
        store.remove(&image.id(), true, &|_| false).unwrap();
        assert_empty(store);
    }
}
