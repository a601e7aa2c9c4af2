//! Image configurations: parsing without I/O, losing nothing.
//!
//! Sources: OCI image-spec 1.1 (config.md), Docker's "Image Specification v1.3" (`Healthcheck`,
//! `OnBuild`, `Shell`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::manifest::{MAX_CONFIG_BYTES, MAX_LAYERS, or_default};
use crate::platform::Platform;

/// The configuration of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageConfiguration {
    /// When it was made, as RFC 3339 text.
    pub created: Option<String>,
    /// Who made it.
    pub author: String,
    /// What it runs on.
    pub platform: Platform,
    /// How to run it.
    pub config: ExecutionConfig,
    /// The digests of its uncompressed layers, bottom first.
    pub diff_ids: Vec<Digest>,
    /// How it was made, oldest first.
    pub history: Vec<History>,
    /// The whole document, unknown fields included.
    pub raw: Value,
}

/// How to run an image; the `config` object.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecutionConfig {
    /// `user[:group]`, names or numbers.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// Ports offered, as `80/tcp`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Value>,
    /// `NAME=value`.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    /// What is always run; `None` differs from an empty list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Its default arguments, or the command where there is no entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Directories kept in volumes.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, Value>,
    /// The working directory.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Labels.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the workload to end.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
    /// Seconds between the stop signal and SIGKILL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Docker's health check, as it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Value>,
    /// The shell of shell-form commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Instructions for images built on this one.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub on_build: Vec<String>,
    /// Everything else in the object.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, as RFC 3339 text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// Who.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub author: String,
    /// Why.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "is_false"
    )]
    pub empty_layer: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Deserialize)]
struct Document {
    created: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    author: String,
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    variant: Option<String>,
    #[serde(rename = "os.features", default, deserialize_with = "or_default")]
    features: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    config: ExecutionConfig,
    rootfs: Option<RootFs>,
    #[serde(default, deserialize_with = "or_default")]
    history: Vec<History>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<Digest>,
}

impl ImageConfiguration {
    /// Parses a configuration; `object` names it in errors.
    ///
    /// # Errors
    /// [`Error::Malformed`] or [`Error::TooLarge`].
    pub fn parse(bytes: &[u8], object: &str) -> Result<Self> {
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(Error::TooLarge {
                object: object.to_owned(),
                limit: "8 MiB for a configuration".to_owned(),
            });
        }
        let malformed = |error: serde_json::Error| {
            Error::malformed(object, format!("not an image configuration: {error}"))
        };
        let raw: Value = serde_json::from_slice(bytes).map_err(malformed)?;
        let document: Document = serde_json::from_slice(bytes).map_err(malformed)?;
        let Some(rootfs) = document.rootfs else {
            return Err(Error::malformed(
                object,
                "not an image configuration: rootfs is missing",
            ));
        };
        if !matches!(rootfs.kind.as_str(), "" | "layers") {
            return Err(Error::Unsupported {
                object: object.to_owned(),
                reason: format!("rootfs type {:?} is not supported", rootfs.kind),
            });
        }
        if rootfs.diff_ids.len() > MAX_LAYERS {
            return Err(Error::TooLarge {
                object: format!("{object} ({} layers)", rootfs.diff_ids.len()),
                limit: format!("{MAX_LAYERS} layers"),
            });
        }
        let os = if document.os.is_empty() {
            "linux"
        } else {
            &document.os
        };
        let architecture = if document.architecture.is_empty() {
            std::env::consts::ARCH
        } else {
            &document.architecture
        };
        Ok(Self {
            platform: Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: document.variant,
                features: document.features,
            }
            .normalized(),
            created: document.created,
            author: document.author,
            config: document.config,
            diff_ids: rootfs.diff_ids,
            history: document.history,
            raw,
        })
    }
}

/// Feeds hostile bytes to the parser of configurations.
pub fn fuzz_config(data: &[u8]) {
    let _ = ImageConfiguration::parse(data, "fuzz");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn docker_fields_and_unknown_fields_survive() {
        let text = r#"{"architecture":"amd64","os":"linux","docker_version":"20","config":{
            "Env":null,"Cmd":["sh"],"Entrypoint":null,"OnBuild":["RUN x"],"Shell":["/bin/bash","-c"],
            "Healthcheck":{"Test":["CMD","true"],"Interval":5000000000},"ArgsEscaped":true,"Labels":null,
            "Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}}},
            "rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config = ImageConfiguration::parse(text.as_bytes(), "x").unwrap();
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(config.config.entrypoint, None);
        assert_eq!(config.config.on_build, ["RUN x"]);
        assert_eq!(config.config.other["ArgsEscaped"], true);
        assert_eq!(config.raw["docker_version"], "20");
        let again = serde_json::to_value(&config.config).unwrap();
        assert_eq!(again["Healthcheck"]["Interval"], 5_000_000_000_u64);
        assert_eq!(again["ArgsEscaped"], true);
    }

    #[test]
    fn wrong_documents_are_refused() {
        for (text, expected) in [
            ("[]", "not an image configuration"),
            ("{}", "rootfs is missing"),
            (r#"{"rootfs":{"type":"layers","diff_ids":["x"]}}"#, "digest"),
            (r#"{"rootfs":{"type":"base"}}"#, "rootfs type"),
        ] {
            let error = ImageConfiguration::parse(text.as_bytes(), "x").unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(data in proptest::collection::vec(any::<u8>(), 0..512)) {
            fuzz_config(&data);
        }
    }
}
