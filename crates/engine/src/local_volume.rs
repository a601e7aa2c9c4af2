//! The options of the volume driver `local`: a volume that is a mount, as Docker has them. No I/O.
//!
//! `type` is a file system (or `none` for a bind), `device` what is mounted, `o` options in
//! mount(8)'s words.

use crate::error::{Error, Result};
use crate::volume_block;
use gamut_spec::units;
use std::collections::BTreeMap;

/// Attributes of a mount (mount_setattr(2)): word, bit, whether the word sets or clears it.
const ATTRIBUTES: [(&str, u64, bool); 13] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, true),
    ("rw", libc::MOUNT_ATTR_RDONLY, false),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, true),
    ("suid", libc::MOUNT_ATTR_NOSUID, false),
    ("nodev", libc::MOUNT_ATTR_NODEV, true),
    ("dev", libc::MOUNT_ATTR_NODEV, false),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, true),
    ("exec", libc::MOUNT_ATTR_NOEXEC, false),
    ("noatime", libc::MOUNT_ATTR_NOATIME, true),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, true),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, true),
    ("diratime", libc::MOUNT_ATTR_NODIRATIME, false),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, true),
];

/// Words that ask for what is so anyway.
const WITHOUT_EFFECT: [&str; 10] = [
    "defaults", "relatime", "atime", "async", "nomand", "loud", "silent", "auto", "noauto",
    "_netdev",
];

const PROPAGATIONS: [(&str, u64, bool); 8] = [
    ("private", libc::MS_PRIVATE, false),
    ("rprivate", libc::MS_PRIVATE, true),
    ("shared", libc::MS_SHARED, false),
    ("rshared", libc::MS_SHARED, true),
    ("slave", libc::MS_SLAVE, false),
    ("rslave", libc::MS_SLAVE, true),
    ("unbindable", libc::MS_UNBINDABLE, false),
    ("runbindable", libc::MS_UNBINDABLE, true),
];

/// A mount that a volume is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalMount {
    /// Type of the file system; empty for a bind.
    pub fstype: String,
    /// What is mounted: a device, a server's directory, a path to bind.
    pub device: String,
    /// A bind, and whether with the mounts below.
    pub bind: Option<bool>,
    /// `MOUNT_ATTR_*` bits to set and to clear.
    pub attributes: (u64, u64),
    /// `MS_PRIVATE` and the like, and whether recursively.
    pub propagation: Option<(u64, bool)>,
    /// Options of the file system; a flag has no value.
    pub options: Vec<(String, Option<String>)>,
}

impl LocalMount {
    /// Checks the options of a volume; `None` if it is no mount but a plain directory.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the option that is unknown, missing or makes no sense.
    pub fn parse(options: &BTreeMap<String, String>) -> Result<Option<Self>> {
        for (name, value) in options {
            match name.as_str() {
                "type" | "o" | "device" => {}
                "size" => check_size(value)?,
                // Of unikernels.
                volume_block::OPTION => drop(volume_block::bytes(options)?),
                _ => return Err(Error::invalid(format!("invalid option: {name:?}"))),
            }
        }
        let has = |name: &str| options.contains_key(name);
        for (option, needed) in [
            ("o", &["device", "type"][..]),
            ("device", &["type"]),
            ("type", &["device"]),
        ] {
            if let Some(missing) = needed.iter().find(|name| has(option) && !has(name)) {
                return Err(Error::invalid(format!(
                    "missing required option: {missing:?}"
                )));
            }
        }
        let text = |name: &str| options.get(name).map_or("", String::as_str);
        if text("type").is_empty() && text("device").is_empty() {
            return Ok(None);
        }
        let mut mount = Self {
            fstype: text("type").to_owned(),
            device: text("device").to_owned(),
            ..Self::default()
        };
        for word in text("o").split(',').map(str::trim) {
            mount.word(word)?;
        }
        if mount.bind.is_none() && matches!(mount.fstype.as_str(), "none" | "bind" | "") {
            return Err(Error::invalid(format!(
                "invalid option: type={:?} names no file system; add o=bind to bind the device {:?}",
                mount.fstype, mount.device
            )));
        }
        if mount.bind.is_some() && !mount.device.starts_with('/') {
            return Err(Error::invalid(format!(
                "invalid option: device={:?} must be an absolute path for o=bind",
                mount.device
            )));
        }
        Ok(Some(mount))
    }

    fn word(&mut self, word: &str) -> Result<()> {
        if let Some(&(_, bit, sets)) = ATTRIBUTES.iter().find(|(known, _, _)| *known == word) {
            let (set, clear) = &mut self.attributes;
            *set &= !bit;
            *clear &= !bit;
            *(if sets { set } else { clear }) |= bit;
            return Ok(());
        }
        if let Some(&(_, kind, recursive)) =
            PROPAGATIONS.iter().find(|(known, _, _)| *known == word)
        {
            self.propagation = Some((kind, recursive));
            return Ok(());
        }
        match word {
            "" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "remount" => {
                return Err(Error::invalid(
                    "invalid option: o=remount makes no sense for a volume",
                ));
            }
            word if WITHOUT_EFFECT.contains(&word) => {}
            word => self.options.push(match word.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (word.to_owned(), None),
            }),
        }
        Ok(())
    }

    /// The options of the file system as one text, without secrets.
    #[must_use]
    pub fn data(&self) -> String {
        let words: Vec<String> = self
            .options
            .iter()
            .map(|(name, value)| match value {
                Some(_) if name.starts_with("pass") => format!("{name}=********"),
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            })
            .collect();
        words.join(",")
    }
}

/// A limit needs quotas, which directories of volumes have not.
fn check_size(value: &str) -> Result<()> {
    match units::parse_bytes(value) {
        None => Err(Error::invalid(format!("invalid option: size={value:?}"))),
        Some(0) => Ok(()),
        Some(_) => Err(Error::invalid(
            "invalid option: size: quota size requested but no quota support; for a tmpfs say o=size=…",
        )),
    }
}

/// Entry for fuzzing: any text is taken apart or refused without panic.
pub fn fuzz_local_mount(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut fields = text.splitn(3, '\n');
    let mut options = BTreeMap::new();
    for name in ["type", "device", "o"] {
        if let Some(value) = fields.next() {
            options.insert(name.to_owned(), value.to_owned());
        }
    }
    if let Ok(Some(mount)) = LocalMount::parse(&options) {
        let _ = mount.data();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(options: &[(&str, &str)]) -> Result<Option<LocalMount>> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        LocalMount::parse(&options.iter().map(own).collect())
    }

    #[test]
    fn forms() {
        assert_eq!(parse(&[]).unwrap(), None);
        let bind = parse(&[
            ("type", "none"),
            ("o", "rbind,ro,rslave"),
            ("device", "/srv"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!(bind.bind, Some(true));
        assert_eq!(bind.attributes.0, libc::MOUNT_ATTR_RDONLY);
        assert_eq!(bind.propagation, Some((libc::MS_SLAVE, true)));
        let nfs = parse(&[
            ("type", "nfs"),
            ("o", "addr=10.0.0.1,rw,nfsvers=4,nolock,password=hush"),
            ("device", ":/export"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!(
            nfs.data(),
            "addr=10.0.0.1,nfsvers=4,nolock,password=********"
        );
        assert_eq!((nfs.bind, nfs.device.as_str()), (None, ":/export"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (options, reason) in [
            (&[("color", "red")][..], "invalid option: \"color\""),
            (&[("type", "tmpfs")], "missing required option: \"device\""),
            (&[("o", "bind")], "missing required option: \"device\""),
            (&[("size", "10m")], "no quota support"),
            (&[("size", "many")], "size=\"many\""),
            (&[("type", "none"), ("device", "/x")], "o=bind"),
            (
                &[("type", "none"), ("device", "x"), ("o", "bind")],
                "absolute",
            ),
            (
                &[("type", "tmpfs"), ("device", "x"), ("o", "remount")],
                "remount",
            ),
        ] {
            let error = parse(options).unwrap_err().to_string();
            assert!(error.contains(reason), "{options:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "\\PC*") {
            fuzz_local_mount(text.as_bytes());
        }
    }
}
