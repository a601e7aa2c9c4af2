//! Images inside the engine's own binary: nothing needs to be pulled to see it work.
//!
//! Their programs are in `builtin-src/`, without any library, and are built with this crate. The
//! archives are made in memory, the same bytes each time: an OCI image layout that is also a
//! docker-archive, as `docker save` writes them.

#[cfg(test)]
mod tests;

use crate::tar::{Entry, Kind, Writer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io;

/// An image inside the binary.
#[derive(Debug, Clone, Copy)]
pub struct BuiltinImage {
    /// Name, to which the tag `latest` belongs.
    pub name: &'static str,
    /// One line about it.
    pub description: &'static str,
    program: &'static [u8],
    exposed_port: Option<&'static str>,
}

static IMAGES: [BuiltinImage; 2] = [
    BuiltinImage {
        name: "hello-world",
        description: "prints what just happened and ends",
        program: include_bytes!(concat!(env!("OUT_DIR"), "/hello-world")),
        exposed_port: None,
    },
    BuiltinImage {
        name: "hello-http",
        description: "answers HTTP on port 80, or $PORT; serves files with --root DIRECTORY",
        program: include_bytes!(concat!(env!("OUT_DIR"), "/hello-http")),
        exposed_port: Some("80/tcp"),
    },
];

/// The moment of everything in the images: reproducible builds have no other.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// All built-in images.
#[must_use]
pub fn images() -> &'static [BuiltinImage] {
    &IMAGES
}

/// The archive of a built-in image: plain tar, to be loaded like any other. `None` if there is no
/// such image. The name may carry the tag `latest`.
#[must_use]
pub fn archive(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix(":latest").unwrap_or(name);
    let image = IMAGES.iter().find(|image| image.name == name)?;
    match build(image) {
        Ok(archive) => Some(archive),
        // Writing to memory does not fail; should it, the image is as good as not there.
        Err(error) => {
            tracing::error!(name, %error, "built-in image cannot be made");
            None
        }
    }
}

fn build(image: &BuiltinImage) -> io::Result<Vec<u8>> {
    let layer = layer(image)?;
    let layer_digest = hex_digest(&layer);
    let program = format!("/{}", image.name);
    let mut config = json!({
        "Entrypoint": [program],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "WorkingDir": "/",
        "Labels": { "org.opencontainers.image.description": image.description },
    });
    if let Some(port) = image.exposed_port {
        config["ExposedPorts"] = json!({ port: {} });
    }
    let configuration = to_bytes(&json!({
        "architecture": architecture(),
        "os": "linux",
        "created": CREATED,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [
            {
                "created": CREATED,
                "created_by": format!("COPY {} /", image.name),
                "comment": "built into gamut",
            },
            {
                "created": CREATED,
                "created_by": format!("ENTRYPOINT [\"{program}\"]"),
                "empty_layer": true,
            },
        ],
    }))?;
    let config_digest = hex_digest(&configuration);
    let manifest = to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": format!("sha256:{config_digest}"),
            "size": configuration.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{layer_digest}"),
            "size": layer.len(),
        }],
    }))?;
    let manifest_digest = hex_digest(&manifest);
    let index = to_bytes(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": format!("sha256:{manifest_digest}"),
            "size": manifest.len(),
            "platform": { "architecture": architecture(), "os": "linux" },
            "annotations": {
                "io.containerd.image.name": format!("docker.io/library/{}:latest", image.name),
                "org.opencontainers.image.ref.name": "latest",
            },
        }],
    }))?;
    let docker_manifest = to_bytes(&json!([{
        "Config": format!("blobs/sha256/{config_digest}"),
        "RepoTags": [format!("{}:latest", image.name)],
        "Layers": [format!("blobs/sha256/{layer_digest}")],
    }]))?;

    let mut writer = Writer::new(Vec::new());
    writer.append(&Entry::new("blobs/", Kind::Directory, 0o755), &[])?;
    writer.append(&Entry::new("blobs/sha256/", Kind::Directory, 0o755), &[])?;
    for (digest, blob) in [
        (&config_digest, &configuration),
        (&layer_digest, &layer),
        (&manifest_digest, &manifest),
    ] {
        let path = format!("blobs/sha256/{digest}");
        writer.append(&Entry::new(path, Kind::File, 0o644), blob)?;
    }
    writer.append(&Entry::new("index.json", Kind::File, 0o644), &index)?;
    writer.append(
        &Entry::new("manifest.json", Kind::File, 0o644),
        &docker_manifest,
    )?;
    let layout = to_bytes(&json!({ "imageLayoutVersion": "1.0.0" }))?;
    writer.append(&Entry::new("oci-layout", Kind::File, 0o644), &layout)?;
    writer.finish()
}

/// The only layer: the program, the users and groups that a program may ask for, and /tmp.
fn layer(image: &BuiltinImage) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    let mut directory =
        |path: &str, mode| writer.append(&Entry::new(path, Kind::Directory, mode), &[]);
    directory("./", 0o755)?;
    directory("etc/", 0o755)?;
    directory("tmp/", 0o1777)?;
    for (path, mode, content) in [
        (
            "etc/group",
            0o644,
            b"root:x:0:\nnobody:x:65534:\n".as_slice(),
        ),
        (
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n",
        ),
        (image.name, 0o755, image.program),
    ] {
        writer.append(&Entry::new(path, Kind::File, mode), content)?;
    }
    writer.finish()
}

/// The processor's name in OCI's vocabulary, which is Go's.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn to_bytes(value: &Value) -> io::Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(io::Error::other)
}

fn hex_digest(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
