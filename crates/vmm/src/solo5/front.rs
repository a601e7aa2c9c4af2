//! The monitor under the name and with the command line of Solo5's own: `solo5-hvt`.

use std::sync::Arc;

use gamut_abi::guest::solo5::{DeviceKind, Manifest};
use gamut_abi::monitor::BlockConfig;

use crate::block::FileDisk;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::monitor::{self, Assembly, Manners, tell};
use crate::net;

use super::command::{Command, Options, USAGE, parse};
use super::launch::SECTOR_BYTES;
use super::{Attached, attach, core_file};

/// The exit code of everything that goes wrong.
pub(crate) const FAILURE: i32 = 1;

/// Does what a command line says, which is without the program's name: the guest's exit code.
#[must_use]
pub fn main(arguments: &[String]) -> i32 {
    match parse(arguments) {
        Ok(Command::Help) => {
            tell(USAGE);
            FAILURE
        }
        Ok(Command::Version) => {
            tell(&format!(
                "solo5-hvt of gamut-monitor, version {}\nABI version 2\n",
                env!("CARGO_PKG_VERSION")
            ));
            0
        }
        Ok(Command::Run(options)) => {
            monitor::run_assembled(Manners::Solo5, |control| assemble(&options, control))
        }
        Err(problem) => {
            tell(&format!("solo5-hvt: {problem}\n{USAGE}"));
            FAILURE
        }
    }
}

fn assemble(options: &Options, control: &Arc<Control>) -> Result<Assembly> {
    let core_file = match &options.core_directory {
        Some(directory) => {
            let file = core_file::open(directory)?;
            core_file::watch_from_outside(&file, directory)?;
            Some(file)
        }
        None => None,
    };
    let image = monitor::open_image(&options.image)?;
    let manifest =
        monitor::solo5_manifest(&options.image, image.view.bytes())?.ok_or_else(|| {
            wrong(
                options,
                "No Solo5 ABI information found in executable".to_owned(),
            )
        })?;
    let attached = attach_by_options(options, manifest)?;
    let memory_bytes = options.memory_mib.map(|mib| mib.saturating_mul(1 << 20));
    let assembly = monitor::assemble_solo5(
        &options.image,
        image,
        attached,
        &options.arguments,
        memory_bytes,
        control,
    )?;
    Ok(assembly.with_core_file(core_file))
}

fn wrong(options: &Options, problem: String) -> Error {
    Error::Config {
        path: options.image.clone(),
        problem,
    }
}

fn attach_by_options(options: &Options, manifest: Manifest) -> Result<Attached> {
    if let Some((name, _)) = options
        .names()
        .find(|(name, kind)| manifest.find(*kind, name).is_none())
    {
        let problem = format!("Resource not declared in manifest: '{name}'");
        return Err(wrong(options, problem));
    }
    let not_attached = |name: &str, kind: &str| {
        let problem = format!(
            "Device '{name}' of type {kind} declared but not attached. All declared devices must \
             be attached. See --help for syntax."
        );
        wrong(options, problem)
    };
    attach(
        manifest,
        |device| {
            let tap = Options::of(&options.nets, &device.name)
                .ok_or_else(|| not_attached(&device.name, "NET_BASIC"))?;
            let mut tap = net::open_tap(tap)?;
            if let Some(mac) = Options::of(&options.macs, &device.name) {
                tap.config.mac = *mac;
            }
            Ok(tap)
        },
        |device| {
            let path = Options::of(&options.blocks, &device.name)
                .ok_or_else(|| not_attached(&device.name, "BLOCK_BASIC"))?;
            let sector_bytes = Options::of(&options.sectors, &device.name);
            let sector_bytes = sector_bytes.copied().unwrap_or(SECTOR_BYTES);
            debug_assert!(device.kind == DeviceKind::Block);
            let disk = FileDisk::open(&BlockConfig {
                name: device.name.clone(),
                path: path.clone(),
                read_only: false,
            })?;
            check_size(&device.name, path, disk.file_bytes(), sector_bytes)?;
            Ok((disk, sector_bytes))
        },
    )
}

fn check_size(name: &str, path: &str, bytes: u64, sector_bytes: u16) -> Result<()> {
    let failed = |problem: String| Error::Block {
        name: name.to_owned(),
        path: path.to_owned(),
        problem,
    };
    let sector = u64::from(sector_bytes);
    if !bytes.is_multiple_of(sector) {
        return Err(failed(format!(
            "Backing storage size must be block aligned ({sector} bytes)"
        )));
    }
    if bytes < sector {
        return Err(failed(format!(
            "Backing storage must be at least 1 block ({sector} bytes) in size"
        )));
    }
    Ok(())
}
