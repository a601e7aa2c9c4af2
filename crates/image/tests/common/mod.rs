//! Images made in memory, and stores in temporary directories.

#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod server;

use std::path::Path;
use std::sync::Mutex;

use gamut_image::tar::{Entry, Kind, Writer};
use gamut_image::{Digest, Event, ImageStore, Progress};
use serde_json::{Value, json};

pub fn store() -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = ImageStore::open(&dir.path().join("images")).unwrap();
    (dir, store)
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = Writer::new(Vec::new());
    for (name, content) in files {
        tar.append(&Entry::new(*name, Kind::File, 0o644), content)
            .unwrap();
    }
    tar.finish().unwrap()
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub struct TestImage {
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl TestImage {
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        Self::with_config(
            layers,
            &json!({ "Cmd": ["/bin/true"], "Labels": {"a": "b"} }),
        )
    }

    pub fn with_config(layers: Vec<Vec<u8>>, config: &Value) -> Self {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|layer| Digest::of(layer).to_string())
            .collect();
        let history: Vec<Value> = diff_ids
            .iter()
            .map(|id| json!({"created_by": id}))
            .collect();
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        }))
        .unwrap();
        Self { config, layers }
    }

    pub fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    /// As `docker save` writes it.
    pub fn docker_archive(&self, tags: &[&str]) -> Vec<u8> {
        let config_name = format!("{}.json", Digest::of(&self.config).hex());
        let mut files: Vec<(String, Vec<u8>)> = vec![(config_name.clone(), self.config.clone())];
        let mut names = Vec::new();
        for (number, layer) in self.layers.iter().enumerate() {
            names.push(format!("layer-{number}/layer.tar"));
            files.push((names[number].clone(), layer.clone()));
        }
        let manifest = json!([{ "Config": config_name, "RepoTags": tags, "Layers": names }]);
        files.push((
            "manifest.json".to_owned(),
            serde_json::to_vec(&manifest).unwrap(),
        ));
        archive(&files)
    }

    /// The blobs of an OCI layout with layers passed through `pack`, and the manifest.
    pub fn oci(&self, pack: &dyn Fn(&[u8]) -> Vec<u8>) -> (Vec<Vec<u8>>, Vec<u8>) {
        let mut blobs = vec![self.config.clone()];
        let mut layers = Vec::new();
        for layer in &self.layers {
            let packed = pack(layer);
            layers.push(json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                "digest": Digest::of(&packed).to_string(), "size": packed.len(),
            }));
            blobs.push(packed);
        }
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&self.config).to_string(), "size": self.config.len(),
            },
            "layers": layers,
        }))
        .unwrap();
        (blobs, manifest)
    }

    /// An OCI layout in a tar.
    pub fn oci_archive(&self, name: &str, pack: &dyn Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let (blobs, manifest) = self.oci(pack);
        let index = json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&manifest).to_string(), "size": manifest.len(),
            "annotations": { "org.opencontainers.image.ref.name": name },
        }]});
        let mut files = vec![
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            ("index.json".to_owned(), serde_json::to_vec(&index).unwrap()),
        ];
        for blob in blobs.iter().chain([&manifest]) {
            files.push((
                format!("blobs/sha256/{}", Digest::of(blob).hex()),
                blob.clone(),
            ));
        }
        archive(&files)
    }
}

pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(name, bytes)| (&name[..], &bytes[..]))
        .collect();
    tar(&files)
}

/// Nothing on its way, nothing without an image.
pub fn assert_clean(store: &ImageStore) {
    let left: Vec<_> = std::fs::read_dir(store.root().join("ingest"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "ingest is not empty: {left:?}");
    let findings = store.fsck(false).unwrap();
    assert!(findings.is_empty(), "{findings:#?}");
}

/// No image, no blob, no layer, nothing on its way.
pub fn assert_empty(store: &ImageStore) {
    assert!(store.list().unwrap().is_empty());
    for dir in ["ingest", "layers", "blobs/sha256"] {
        let left: Vec<_> = std::fs::read_dir(store.root().join(dir)).unwrap().collect();
        assert!(left.is_empty(), "{dir} is not empty: {left:?}");
    }
}

pub fn read(dir: &Path, name: &str) -> Vec<u8> {
    std::fs::read(dir.join(name)).unwrap()
}

/// Keeps the reports.
#[derive(Default)]
pub struct Recorder {
    pub lines: Mutex<Vec<String>>,
}

impl Progress for Recorder {
    fn report(&self, event: &Event<'_>) {
        let line = format!("{} {}", event.id.unwrap_or("-"), event.step);
        let mut lines = self.lines.lock().unwrap();
        if lines.last() != Some(&line) {
            lines.push(line);
        }
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

impl Recorder {
    pub fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }
}
