//! Platforms, and which manifest of an index fits.

use std::fmt;
use std::str::FromStr;

use gamut_spec::form::{ImageForm, UNIKERNEL_FEATURE, UNIKERNEL_VARIANT};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::manifest::or_default;

/// An operating system, a processor architecture in Go's names, and its variant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// For example `linux`.
    pub os: String,
    /// For example `amd64`, `arm64`.
    pub architecture: String,
    /// For example `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Features of the operating system without which the image cannot run.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub features: Vec<String>,
}

impl Platform {
    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// The platform of unikernels for this machine.
    #[must_use]
    pub fn host_unikernel() -> Self {
        Self::new("linux", std::env::consts::ARCH, Some(UNIKERNEL_VARIANT))
    }

    /// The platform of this machine for programs of a form.
    #[must_use]
    pub fn host_of(form: ImageForm) -> Self {
        match form {
            ImageForm::Linux => Self::host(),
            ImageForm::Unikernel => Self::host_unikernel(),
        }
    }

    /// In what form a program for the platform is.
    #[must_use]
    pub fn form(&self) -> ImageForm {
        if self.variant.as_deref() == Some(UNIKERNEL_VARIANT)
            || self.features.iter().any(|word| word == UNIKERNEL_FEATURE)
        {
            ImageForm::Unikernel
        } else {
            ImageForm::Linux
        }
    }

    /// As a document spells it, with its names normalized.
    #[must_use]
    pub(crate) fn normalized(&self) -> Self {
        let mut platform = Self::new(&self.os, &self.architecture, self.variant.as_deref());
        for feature in &self.features {
            if !platform.features.contains(feature) {
                platform.features.push(feature.clone());
            }
        }
        platform
    }

    /// A platform with its names normalized (`x86_64` → `amd64`, `aarch64` → `arm64`). The variant
    /// `unikernel` brings its feature along.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, implied) = match architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" | "amd64" => ("amd64".to_owned(), None),
            "aarch64" | "arm64" => ("arm64".to_owned(), None),
            "i386" | "i486" | "i586" | "i686" | "x86" | "386" => ("386".to_owned(), None),
            "armhf" => ("arm".to_owned(), Some("v7")),
            "armel" => ("arm".to_owned(), Some("v6")),
            other => (other.to_owned(), None),
        };
        let variant = variant
            .filter(|variant| !variant.is_empty())
            .or(implied)
            .map(str::to_ascii_lowercase);
        let features = if variant.as_deref() == Some(UNIKERNEL_VARIANT) {
            vec![UNIKERNEL_FEATURE.to_owned()]
        } else {
            Vec::new()
        };
        Self {
            os: os.to_ascii_lowercase(),
            variant,
            architecture,
            features,
        }
    }

    /// How well an image for `offered` runs where `self` is wanted: `None` not at all, else the
    /// smaller the better. An absent variant means the field's default (`arm64` is `v8`, `arm` is
    /// `v7`, `amd64` is `v1`); a lower variant runs on a higher one.
    #[must_use]
    pub fn distance(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os
            || self.architecture != offered.architecture
            || self.form() != offered.form()
        {
            return None;
        }
        if self.form() == ImageForm::Unikernel {
            return Some(0);
        }
        match (self.level(), offered.level()) {
            (Some(wanted), Some(offered)) => wanted.checked_sub(offered),
            _ => (self.variant == offered.variant).then_some(0),
        }
    }

    /// Whether an image for `offered` is exactly what `self` asks for; an absent variant asks for
    /// any.
    #[must_use]
    pub fn accepts(&self, offered: &Self) -> bool {
        self.os == offered.os
            && self.architecture == offered.architecture
            && (self.variant.is_none()
                || (self.level() == offered.level() && self.form() == offered.form()))
    }

    fn level(&self) -> Option<u32> {
        match (&self.variant, self.architecture.as_str()) {
            (Some(variant), _) => variant.strip_prefix('v')?.parse().ok(),
            (None, "arm64") => Some(8),
            (None, "arm") => Some(7),
            (None, _) => Some(1),
        }
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self::host()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Parses `linux`, `arm64`, `linux/arm64` and `linux/arm/v7`; what is missing is the host's.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let good = parts.iter().all(|part| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.'))
        });
        let host = Self::host();
        match (good, parts.as_slice()) {
            (true, ["linux"]) => Ok(host),
            (true, [architecture]) => Ok(Self::new("linux", architecture, None)),
            (true, [os, architecture]) => Ok(Self::new(os, architecture, None)),
            (true, [os, architecture, variant]) => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(Error::malformed(
                format!("platform {text:?}"),
                "write os/architecture[/variant], for example linux/amd64 or linux/arm/v7",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn names_are_normalized() {
        assert_eq!(platform("linux/x86_64").to_string(), "linux/amd64");
        assert_eq!(platform("aarch64").to_string(), "linux/arm64");
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/ä"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn forms_are_told_apart() {
        let wanted = platform("linux/amd64");
        let unikernel = platform("linux/amd64/unikernel");
        assert_eq!(unikernel.form(), ImageForm::Unikernel);
        assert_eq!(unikernel.features, [UNIKERNEL_FEATURE]);
        assert_eq!(wanted.distance(&unikernel), None);
        assert_eq!(unikernel.distance(&wanted), None);
        assert_eq!(unikernel.distance(&unikernel), Some(0));
        let by_feature = Platform {
            features: vec![UNIKERNEL_FEATURE.to_owned()],
            ..wanted.clone()
        };
        assert_eq!(wanted.distance(&by_feature), None);
        assert_eq!(unikernel.distance(&by_feature), Some(0));
        let text = serde_json::to_string(&unikernel).unwrap();
        assert!(
            text.contains(r#""os.features":["gamut.unikernel"]"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Platform>(&text).unwrap(), unikernel);
    }

    #[test]
    fn variants_match_downwards() {
        let wanted = platform("linux/arm/v7");
        assert_eq!(wanted.distance(&platform("linux/arm/v7")), Some(0));
        assert_eq!(wanted.distance(&platform("linux/arm/v6")), Some(1));
        assert_eq!(wanted.distance(&platform("linux/arm/v8")), None);
        assert_eq!(
            platform("linux/arm64").distance(&platform("linux/arm64/v8")),
            Some(0)
        );
        assert_eq!(
            platform("linux/amd64").distance(&platform("linux/amd64/v2")),
            None
        );
        assert_eq!(
            platform("linux/amd64").distance(&platform("linux/arm64")),
            None
        );
    }
}
