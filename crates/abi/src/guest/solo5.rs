//! Images of Solo5 (MirageOS and others): notes and manifest of **hvt, ABI version 2**.
//!
//! Source: Solo5's `include/elf_abi.h` (note `ABI1`), `include/mft_abi.h` (note `MFT1`) and
//! `include/hvt_abi.h`. No I/O; the file is hostile.
//!
//! A manifest is an array of devices that the image declares by name. The monitor fills in what
//! each of them is ([`Manifest::attach_block`], [`Manifest::attach_net`]) and hands a copy over.

use super::bytes::u32_at as word;
use super::elf::{ImageError, description};
use super::note::{NEEDS_BLOCK, NEEDS_NETWORK, Note};
use alloc::string::String;
use alloc::vec::Vec;

/// Owner of the notes, with its terminating zero.
const OWNER: &[u8] = b"Solo5\0";

/// Type of the note that names target and version of the ABI: "ABI1".
const TYPE_ABI: u32 = 0x3149_4241;

/// Type of the note that holds the manifest: "MFT1".
const TYPE_MANIFEST: u32 = 0x3154_464d;

/// The target of machine monitors.
const TARGET_HVT: u32 = 1;

/// Version of its ABI.
const HVT_VERSION: u32 = 2;

/// What such a file names as its dynamic linker, so that no kernel takes it for a program of its
/// own.
const INTERPRETER: &[u8] = b"/nonexistent/solo5/\0";

/// Where an image that is found by its interpreter names it: before its code.
const INTERPRETER_WITHIN_BYTES: usize = 8 << 10;

/// Memory of a guest whose user does not say, in bytes: what Solo5's own monitor gives.
pub const DEFAULT_MEMORY_BYTES: u64 = 512 << 20;

const MANIFEST_VERSION: u32 = 1;
/// Most entries; their indices are bits of a 64-bit set.
pub const MAX_ENTRIES: usize = 64;
/// The manifest is aligned to 8 bytes, but a note's description to 4.
const PADDING_BYTES: usize = 4;
const HEADER_BYTES: usize = 8;
const ENTRY_BYTES: usize = 104;
const NAME_BYTES: usize = 68;
const TYPE_AT: usize = 68;
const PROPERTIES_AT: usize = 72;
const ATTACHED_AT: usize = 96;
const TYPE_BLOCK: u32 = 1;
const TYPE_NET: u32 = 2;
const TYPE_RESERVED: u32 = 1 << 30;

/// What kind of device a manifest's entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// `BLOCK_BASIC`.
    Block,
    /// `NET_BASIC`.
    Net,
}

/// A device that an image declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its index in the manifest, by which requests name it.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
}

/// The devices of an image, and the bytes that it will find of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    bytes: Vec<u8>,
    devices: Vec<Device>,
}

fn wrong(field: &'static str, problem: &'static str) -> ImageError {
    ImageError::new(field, problem)
}

const MANIFEST: &str = "MFT1";

/// The manifest of a Solo5 image. `None` if the file is something else.
///
/// # Errors
/// If it is none that this ABI can run, or its manifest is malformed.
pub fn manifest(file: &[u8]) -> Result<Option<Manifest>, ImageError> {
    let Some(abi) = description(file, OWNER, TYPE_ABI)? else {
        return Ok(None);
    };
    let abi = file.get(abi).unwrap_or_default();
    match (word(abi, 0), word(abi, 4)) {
        (Some(TARGET_HVT), Some(HVT_VERSION)) => {}
        (Some(TARGET_HVT), Some(_)) => {
            return Err(wrong(
                "ABI1",
                "it was built for another version of Solo5's ABI than 2; build it with Solo5 0.6 \
                 or later",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(wrong(
                "ABI1",
                "it was built for another target of Solo5; build it for hvt",
            ));
        }
        _ => return Err(wrong("ABI1", "the note does not fall within valid size")),
    }
    let found = description(file, OWNER, TYPE_MANIFEST)?
        .and_then(|range| file.get(range))
        .ok_or_else(|| wrong("PT_NOTE", "it is a Solo5 image without a manifest"))?;
    Manifest::parse(found).map(Some)
}

/// Whether the beginning of a file is that of a Solo5 image, as far as can be told without its
/// notes, which lie behind its code.
#[must_use]
pub fn is_beginning(bytes: &[u8]) -> bool {
    let head = bytes.get(..INTERPRETER_WITHIN_BYTES).unwrap_or(bytes);
    bytes.starts_with(b"\x7fELF")
        && head
            .windows(INTERPRETER.len())
            .any(|window| window == INTERPRETER)
}

impl Manifest {
    /// Reads the description of the note.
    ///
    /// # Errors
    /// Names what is wrong with it.
    pub fn parse(description: &[u8]) -> Result<Self, ImageError> {
        let size = || wrong(MANIFEST, "note does not fall within valid size");
        let bytes = description.get(PADDING_BYTES..).ok_or_else(size)?;
        let version = word(bytes, 0).ok_or_else(size)?;
        let count = word(bytes, 4).ok_or_else(size)?;
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if version != MANIFEST_VERSION {
            return Err(wrong(MANIFEST, "the manifest's version is not 1"));
        }
        if count > MAX_ENTRIES {
            return Err(wrong(MANIFEST, "too many entries, maximum 63"));
        }
        if bytes.len() != HEADER_BYTES + count * ENTRY_BYTES {
            return Err(size());
        }
        let mut devices = Vec::new();
        let entries = bytes.get(HEADER_BYTES..).unwrap_or_default();
        for (index, entry) in entries.chunks_exact(ENTRY_BYTES).enumerate() {
            devices.extend(read_entry(index, entry)?);
        }
        if count == 0 {
            return Err(wrong(
                MANIFEST,
                "the first entry, a reserved one, is missing",
            ));
        }
        Ok(Self {
            bytes: bytes.to_vec(),
            devices,
        })
    }

    /// The devices, in their order.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The device of a name and kind.
    #[must_use]
    pub fn find(&self, kind: DeviceKind, name: &str) -> Option<&Device> {
        let mut devices = self.devices.iter();
        devices.find(|device| device.kind == kind && device.name == name)
    }

    /// What the guest finds in its memory.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Fills in a block device: its size and that of its sectors.
    pub fn attach_block(&mut self, index: usize, capacity_bytes: u64, sector_bytes: u16) {
        let mut properties = [0; 16];
        let (capacity, sector) = properties.split_at_mut(8);
        capacity.copy_from_slice(&capacity_bytes.to_le_bytes());
        if let Some(sector) = sector.first_chunk_mut() {
            *sector = sector_bytes.to_le_bytes();
        }
        self.attach(index, properties);
    }

    /// Fills in a network device.
    pub fn attach_net(&mut self, index: usize, mac: [u8; 6], mtu_bytes: u16) {
        let mut properties = [0; 16];
        let (address, rest) = properties.split_at_mut(6);
        address.copy_from_slice(&mac);
        if let Some(mtu) = rest.first_chunk_mut() {
            *mtu = mtu_bytes.to_le_bytes();
        }
        self.attach(index, properties);
    }

    fn attach(&mut self, index: usize, properties: [u8; 16]) {
        let entry = self
            .bytes
            .get_mut(HEADER_BYTES..)
            .and_then(|entries| entries.chunks_exact_mut(ENTRY_BYTES).nth(index));
        let Some(entry) = entry else {
            return;
        };
        if let Some(place) = entry.get_mut(PROPERTIES_AT..PROPERTIES_AT + properties.len()) {
            place.copy_from_slice(&properties);
        }
        if let Some(attached) = entry.get_mut(ATTACHED_AT) {
            *attached = 1;
        }
    }

    /// What the image needs, as images of Gamut say it.
    #[must_use]
    pub fn note(&self) -> Note {
        let needs = self.devices.iter().map(|device| match device.kind {
            DeviceKind::Block => NEEDS_BLOCK,
            DeviceKind::Net => NEEDS_NETWORK,
        });
        Note {
            abi_version: super::GUEST_ABI_VERSION,
            needs: needs.fold(0, |all, one| all | one),
            stack_bytes: 0,
            minimum_memory_bytes: 0,
            default_memory_bytes: DEFAULT_MEMORY_BYTES,
        }
    }
}

/// The device of an entry; none for a reserved one.
fn read_entry(index: usize, entry: &[u8]) -> Result<Option<Device>, ImageError> {
    let name = entry.get(..NAME_BYTES).unwrap_or_default();
    let end = name.iter().position(|byte| *byte == 0);
    let kind = word(entry, TYPE_AT).unwrap_or(0);
    if end.is_none() || name.last() != Some(&0) {
        return Err(wrong(MANIFEST, "the name of an entry has no end"));
    }
    if entry.get(ATTACHED_AT) != Some(&0) {
        return Err(wrong(MANIFEST, "an entry says that it is attached already"));
    }
    if index == 0 && (kind != TYPE_RESERVED || end != Some(0)) {
        return Err(wrong(MANIFEST, "the first entry is not the reserved one"));
    }
    let kind = match kind {
        TYPE_BLOCK => DeviceKind::Block,
        TYPE_NET => DeviceKind::Net,
        TYPE_RESERVED.. => return Ok(None),
        _ => return Err(wrong(MANIFEST, "an entry is of an unknown type")),
    };
    let name = name.get(..end.unwrap_or(0)).unwrap_or_default();
    Ok(Some(Device {
        index,
        name: String::from_utf8_lossy(name).into_owned(),
        kind,
    }))
}

/// Entry for fuzzers: must come back, whatever the bytes.
pub fn fuzz_manifest(bytes: &[u8]) {
    let _ = is_beginning(bytes);
    let _ = manifest(bytes);
    if let Ok(mut manifest) = Manifest::parse(bytes) {
        let before = manifest.bytes.len();
        for device in manifest.devices.clone() {
            manifest.attach_block(device.index, u64::MAX, u16::MAX);
            manifest.attach_net(device.index, [0xff; 6], u16::MAX);
        }
        manifest.attach_block(usize::MAX, 0, 0);
        assert!(manifest.bytes.len() == before, "only fields change");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, kind: u32) -> Vec<u8> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(NAME_BYTES, 0);
        bytes.extend(kind.to_le_bytes());
        bytes.resize(ENTRY_BYTES, 0);
        bytes
    }

    fn note(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = [0; PADDING_BYTES].to_vec();
        bytes.extend(MANIFEST_VERSION.to_le_bytes());
        bytes.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
        bytes.extend(entries.concat());
        bytes
    }

    fn usual() -> Vec<u8> {
        note(&[
            entry("", TYPE_RESERVED),
            entry("service", TYPE_NET),
            entry("storage", TYPE_BLOCK),
        ])
    }

    #[test]
    fn devices_are_read_and_filled_in() {
        let mut manifest = Manifest::parse(&usual()).unwrap();
        let names: Vec<_> = manifest
            .devices
            .iter()
            .map(|one| (one.index, &*one.name))
            .collect();
        assert_eq!(names, [(1, "service"), (2, "storage")]);
        assert_eq!(manifest.note().needs, NEEDS_NETWORK | NEEDS_BLOCK);
        assert!(manifest.find(DeviceKind::Block, "service").is_none());
        manifest.attach_net(1, [2, 0, 0, 0, 0, 7], 9000);
        manifest.attach_block(2, 0x1_0000_0000, 4096);
        let at = |entry: usize, at: usize| HEADER_BYTES + entry * ENTRY_BYTES + at;
        let bytes = manifest.bytes();
        assert_eq!(bytes[at(1, 72)..at(1, 80)], [2, 0, 0, 0, 0, 7, 0x28, 0x23]);
        assert_eq!(bytes[at(2, 72)..at(2, 82)], [0, 0, 0, 0, 1, 0, 0, 0, 0, 16]);
        assert_eq!(
            (bytes[at(0, 96)], bytes[at(1, 96)], bytes[at(2, 96)]),
            (0, 1, 1)
        );
    }

    #[test]
    fn what_is_malformed_is_named() {
        let problem = |bytes: &[u8]| Manifest::parse(bytes).expect_err("malformed").problem;
        assert!(problem(&[0]).contains("does not fall within valid size"));
        let mut short = usual();
        short.pop();
        assert!(problem(&short).contains("does not fall within valid size"));
        let mut version = usual();
        version[PADDING_BYTES] = 2;
        assert!(problem(&version).contains("version"));
        assert!(problem(&note(&[])).contains("missing"));
        assert!(problem(&note(&[entry("a", TYPE_NET)])).contains("reserved"));
        let many = [(); 65].map(|()| entry("", TYPE_RESERVED));
        assert!(problem(&note(&many)).contains("too many"));
        let other = [entry("", TYPE_RESERVED), entry("x", 3)];
        assert!(problem(&note(&other)).contains("unknown type"));
        let mut endless = entry("x", TYPE_NET);
        endless[..NAME_BYTES].fill(b'x');
        let endless = [entry("", TYPE_RESERVED), endless];
        assert!(problem(&note(&endless)).contains("no end"));
        let mut attached = entry("x", TYPE_NET);
        attached[ATTACHED_AT] = 1;
        let attached = [entry("", TYPE_RESERVED), attached];
        assert!(problem(&note(&attached)).contains("already"));
    }

    proptest! {
        #[test]
        fn no_input_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            at in 0_usize..340, value: u8,
        ) {
            fuzz_manifest(&bytes);
            let mut damaged = usual();
            let at = at % damaged.len();
            damaged[at] = value;
            fuzz_manifest(&damaged);
        }
    }
}
