//! What QEMU reads by its path: the image, and one boot module with configuration text and the
//! image of a read-only file system.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use gamut_abi::guest::config::push;
use gamut_abi::guest::control_line;

use crate::error::{Error, Result};
use crate::layout::{PAGE_BYTES, page_ceiling};

/// Names of the files in the scratch directory.
const KERNEL: &str = "kernel";
const MODULE: &str = "module";

/// The files.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) kernel: PathBuf,
    pub(super) module: PathBuf,
    /// Size of the module, which takes that much of the guest's memory.
    pub(super) module_bytes: u64,
}

/// Writes the files into a directory, readable for everybody.
pub(super) fn write(
    directory: &Path,
    image: &[u8],
    config_text: &[u8],
    rofs: Option<File>,
) -> Result<Files> {
    let kernel = directory.join(KERNEL);
    create(&kernel)
        .and_then(|mut file| file.write_all(image))
        .map_err(|error| failed(&kernel, error))?;
    let rofs_bytes = match &rofs {
        Some(file) => file.metadata().map(|metadata| metadata.len()),
        None => Ok(0),
    };
    let module = directory.join(MODULE);
    let rofs_bytes = rofs_bytes.map_err(|error| failed(&module, error))?;
    let text = head(config_text, rofs_bytes);
    let module_bytes = create(&module)
        .and_then(|mut file| {
            file.write_all(&text)?;
            let copied = match rofs {
                // Not more than was said, if it grows meanwhile.
                Some(rofs) => io::copy(&mut rofs.take(rofs_bytes), &mut file)?,
                None => 0,
            };
            Ok(text.len() as u64 + copied)
        })
        .map_err(|error| failed(&module, error))?;
    Ok(Files {
        kernel,
        module,
        module_bytes,
    })
}

fn create(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o644)
        .open(path)
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::system(format!("write {} for QEMU", path.display()), error)
        .with_advice("the directory is the configuration's scratchPath")
}

/// The configuration text as a module begins with it, before the image of a file system.
fn head(config_text: &[u8], rofs_bytes: u64) -> Vec<u8> {
    let mut text = Vec::new();
    // Neither key nor value holds a zero byte. The longest number: the place is known only then.
    let _ = push(&mut text, control_line::KEY, control_line::VALUE);
    if rofs_bytes == 0 {
        text.extend_from_slice(config_text);
        return text;
    }
    let longest = "rofs=".len() + 2 * "18446744073709551615".len() + 2;
    let bytes = (text.len() + longest + config_text.len()) as u64;
    let offset = page_ceiling(bytes).unwrap_or(PAGE_BYTES);
    let _ = push(&mut text, "rofs", &format!("{offset} {rofs_bytes}"));
    text.extend_from_slice(config_text);
    text.resize(usize::try_from(offset).unwrap_or(text.len()), 0);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use gamut_abi::guest::config::values;

    #[test]
    fn a_module_holds_both() {
        let folder = tempfile::tempdir().expect("a folder");
        let rofs = folder.path().join("rofs");
        std::fs::write(&rofs, "the image").expect("a file");
        let rofs = File::open(rofs).expect("the file");
        let files = write(folder.path(), b"ELF", b"arg=x\0", Some(rofs)).expect("written");
        assert_eq!(std::fs::read(&files.kernel).expect("a file"), b"ELF");
        let module = std::fs::read(&files.module).expect("a file");
        assert_eq!(module.len() as u64, files.module_bytes);
        assert_eq!(values(&module, "rofs").next(), Some("4096 9"));
        assert_eq!(values(&module, "arg").next(), Some("x"));
        assert_eq!(values(&module, "control").next(), Some("com2"));
        assert_eq!(&module[4096..], b"the image");
        let files = write(folder.path(), b"ELF", b"arg=y\0", None).expect("written again");
        let module = std::fs::read(&files.module).expect("a file");
        assert_eq!(module, b"control=com2\0arg=y\0");
    }
}
