//! Commands that use block devices and the read-only file system.

use gamut_libos::block::{self, BlockDevice, SECTOR_BYTES};
use gamut_libos::prelude::*;
use gamut_libos::rofs as read_only;

const SECTOR: usize = SECTOR_BYTES as usize;

fn device() -> Result<BlockDevice, Error> {
    let first = block::devices().next();
    first.ok_or(Error::new("there is no block device"))
}

pub(super) async fn block(arguments: &[&str]) -> Result<(), Error> {
    match arguments {
        ["info"] => {
            for device in block::devices() {
                let mode = if device.is_read_only() { "ro" } else { "rw" };
                println!("{} {} {mode}", device.name(), device.bytes());
            }
        }
        ["read"] => {
            let data = device()?.read(0, SECTOR).await?;
            let end = data.iter().position(|&byte| byte == 0);
            let text = data.get(..end.unwrap_or(SECTOR)).unwrap_or_default();
            println!("{}", String::from_utf8_lossy(text));
        }
        ["write", text] => {
            let mut data = text.as_bytes().to_vec();
            data.resize(SECTOR, 0);
            let device = device()?;
            device.write(0, data).await?;
            device.flush().await?;
            println!("written");
        }
        ["fill"] => fill(&device()?).await?,
        ["beyond"] => {
            let device = device()?;
            device.read(device.bytes(), SECTOR).await?;
        }
        _ => return Err(Error::new("block info, read, write TEXT, fill or beyond")),
    }
    Ok(())
}

/// Writes every sector with its number, reads all back, and gives the space back.
async fn fill(device: &BlockDevice) -> Result<(), Error> {
    const PIECE: usize = 64 * SECTOR;
    let content = |offset: u64, bytes: usize| -> Vec<u8> {
        let first = offset / u64::from(SECTOR_BYTES);
        let sectors = (first..).take(bytes / SECTOR);
        sectors
            .flat_map(|sector| [sector.to_le_bytes(); SECTOR / 8].into_iter().flatten())
            .collect()
    };
    let mut offset = 0;
    while offset < device.bytes() {
        let left = usize::try_from(device.bytes() - offset).unwrap_or(PIECE);
        let data = content(offset, left.min(PIECE));
        let bytes = data.len();
        device.write(offset, data).await?;
        offset += bytes as u64;
    }
    device.flush().await?;
    offset = 0;
    while offset < device.bytes() {
        let left = usize::try_from(device.bytes() - offset).unwrap_or(PIECE);
        let data = device.read(offset, left.min(PIECE)).await?;
        if data != content(offset, data.len()) {
            return Err(Error::from(format!("other data read back at {offset}")));
        }
        offset += data.len() as u64;
    }
    device.discard(0, device.bytes()).await?;
    let data = device.read(0, SECTOR).await?;
    if data.iter().any(|&byte| byte != 0) {
        return Err(Error::new("discarded space does not read as zeros"));
    }
    println!("filled {} bytes", device.bytes());
    Ok(())
}

pub(super) fn rofs(arguments: &[&str]) -> Result<(), Error> {
    let files = read_only::open().ok_or(Error::new("there is no read-only file system"))?;
    let files = files.map_err(|error| Error::from(error.to_string()))?;
    match arguments {
        ["list"] => {
            for file in files.files() {
                println!("{} {}", file.path, file.content.len());
            }
        }
        ["read", path] => {
            let content = files.read(path);
            let content = content.ok_or_else(|| Error::from(format!("{path}: no such file")))?;
            print!("{}", String::from_utf8_lossy(content));
        }
        _ => return Err(Error::new("rofs list or read PATH")),
    }
    Ok(())
}
