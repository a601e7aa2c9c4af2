//! Images made on the spot, in every intact and damaged shape.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// `sha256:…` of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A tar of regular files, intact.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        append(
            &mut builder,
            path.as_bytes(),
            tar::EntryType::Regular,
            None,
            content,
        );
    }
    builder.into_inner().unwrap()
}

/// Appends an entry whose path and link target are taken as they are, however hostile.
pub fn append(
    builder: &mut tar::Builder<Vec<u8>>,
    path: &[u8],
    kind: tar::EntryType,
    target: Option<&str>,
    content: &[u8],
) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(content.len().try_into().unwrap());
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    if let Some(target) = target {
        header.as_mut_bytes()[157..157 + target.len()].copy_from_slice(target.as_bytes());
    }
    if matches!(kind, tar::EntryType::Block | tar::EntryType::Char) {
        header.set_device_major(8).unwrap();
        header.set_device_minor(0).unwrap();
    }
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

/// An OCI image in its parts.
#[derive(Clone)]
pub struct OciImage {
    pub layers: Vec<Vec<u8>>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl OciImage {
    /// An image of these uncompressed layers.
    pub fn of(layers: Vec<Vec<u8>>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["/bin/true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let mut image = Self {
            layers,
            config,
            manifest: Vec::new(),
        };
        image.manifest = image.manifest_value().to_string().into_bytes();
        image
    }

    /// An image of `count` layers of noise.
    pub fn noisy(seed: u64, count: u64, bytes: usize) -> Self {
        let layer = |number: u64| {
            let name = format!("noise-{number}");
            tar_of(&[(name.as_str(), &noise(seed * 1000 + number, bytes))])
        };
        Self::of((0..count).map(layer).collect())
    }

    pub fn manifest_value(&self) -> Value {
        let layers: Vec<Value> = self
            .layers
            .iter()
            .map(|layer| {
                json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": digest(layer), "size": layer.len(),
                })
            })
            .collect();
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&self.config), "size": self.config.len(),
            },
            "layers": layers,
        })
    }

    /// Every blob with its digest.
    pub fn blobs(&self) -> Vec<(String, Vec<u8>)> {
        let parts = self.layers.iter().chain([&self.config, &self.manifest]);
        parts.map(|blob| (digest(blob), blob.clone())).collect()
    }

    /// The image as an OCI archive named `name`.
    pub fn archive(&self, name: &str) -> Vec<u8> {
        self.archive_with(name, |_, blob| blob.to_vec())
    }

    /// The archive, each blob as `change` makes it.
    pub fn archive_with(&self, name: &str, change: impl Fn(&str, &[u8]) -> Vec<u8>) -> Vec<u8> {
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&self.manifest), "size": self.manifest.len(),
                "annotations": {"io.containerd.image.name": name},
            }],
        });
        let mut files: Vec<(String, Vec<u8>)> = vec![
            (
                "oci-layout".to_owned(),
                br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
            ),
            ("index.json".to_owned(), index.to_string().into_bytes()),
        ];
        for (digest, blob) in self.blobs() {
            let path = format!("blobs/{}", digest.replace(':', "/"));
            files.push((path, change(&digest, &blob)));
        }
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(path, blob)| (path.as_str(), blob.as_slice()))
            .collect();
        tar_of(&files)
    }
}
