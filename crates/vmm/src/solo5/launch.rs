//! Which device of the machine is which of the manifest's.

use gamut_abi::guest::solo5::{Device, DeviceKind, Manifest};
use gamut_abi::monitor::BlockConfig;

use crate::block::FileDisk;
use crate::device::Disk;
use crate::error::{Error, Result};
use crate::net::Tap;

/// Sectors of a device whose user does not say, in bytes.
pub const SECTOR_BYTES: u16 = 512;

/// The devices of a guest, in the order of its manifest, which tells the guest of them.
pub struct Attached {
    /// The manifest, filled in.
    pub manifest: Manifest,
    /// Network devices.
    pub taps: Vec<Tap>,
    /// Block devices.
    pub disks: Vec<FileDisk>,
}

/// Attaches what is found for each device of a manifest.
///
/// # Errors
/// What looking for it says.
pub fn attach(
    mut manifest: Manifest,
    mut find_tap: impl FnMut(&Device) -> Result<Tap>,
    mut find_disk: impl FnMut(&Device) -> Result<(FileDisk, u16)>,
) -> Result<Attached> {
    let (mut taps, mut disks) = (Vec::new(), Vec::new());
    for device in manifest.devices().to_vec() {
        match device.kind {
            DeviceKind::Net => {
                let tap = find_tap(&device)?;
                let mtu = u16::try_from(tap.config.mtu).unwrap_or(u16::MAX);
                manifest.attach_net(device.index, tap.config.mac, mtu);
                taps.push(tap);
            }
            DeviceKind::Block => {
                let (disk, sector_bytes) = find_disk(&device)?;
                manifest.attach_block(device.index, disk.bytes(), sector_bytes);
                disks.push(disk);
            }
        }
    }
    Ok(Attached {
        manifest,
        taps,
        disks,
    })
}

/// Attaches the devices of a machine that knows nothing of manifests: interfaces in their order,
/// block devices by their names (`/storage` is `storage`).
///
/// # Errors
/// If there are fewer interfaces than the image declares, or a block device of another name.
pub fn attach_by_config(
    path: &str,
    manifest: Manifest,
    taps: Vec<Tap>,
    blocks: &[BlockConfig],
) -> Result<Attached> {
    let refused = |problem: String| Error::Image {
        path: path.to_owned(),
        problem: crate::error::ImageError::new("MFT1", problem),
    };
    let wants = |kind| {
        manifest
            .devices()
            .iter()
            .filter(|one| one.kind == kind)
            .count()
    };
    let (wants_nets, wants_blocks) = (wants(DeviceKind::Net), wants(DeviceKind::Block));
    if wants_nets < taps.len() && wants_nets > 0 {
        return Err(refused(format!(
            "it declares {wants_nets} network devices, but has {} networks; connect it to fewer",
            taps.len()
        )));
    }
    let unknown = blocks.iter().find(|block| {
        let name = block.name.trim_start_matches('/');
        manifest.find(DeviceKind::Block, name).is_none()
            && !(wants_blocks == 1 && blocks.len() == 1)
    });
    if let Some(block) = unknown {
        return Err(refused(format!(
            "it declares no block device {:?}; it has {}",
            block.name.trim_start_matches('/'),
            names(&manifest, DeviceKind::Block)
        )));
    }
    let declared = names(&manifest, DeviceKind::Net);
    let mut taps = taps.into_iter();
    attach(
        manifest,
        |device| {
            taps.next().ok_or_else(|| {
                refused(format!(
                    "network device {:?} has no network; it declares {declared}: connect it to as \
                     many networks",
                    device.name
                ))
            })
        },
        |device| {
            let block = blocks
                .iter()
                .find(|block| block.name.trim_start_matches('/') == device.name)
                .or_else(|| blocks.first().filter(|_| wants_blocks == 1))
                .ok_or_else(|| {
                    refused(format!(
                        "block device {:?} has no volume; give it one (-v NAME:/{})",
                        device.name, device.name
                    ))
                })?;
            Ok((FileDisk::open(block)?, SECTOR_BYTES))
        },
    )
}

fn names(manifest: &Manifest, kind: DeviceKind) -> String {
    let names: Vec<&str> = manifest
        .devices()
        .iter()
        .filter(|device| device.kind == kind)
        .map(|device| device.name.as_str())
        .collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}
