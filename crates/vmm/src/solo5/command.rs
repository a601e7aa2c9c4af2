//! The command line of Solo5's own monitor, `solo5-hvt`. No I/O.

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Tell how it is called.
    Help,
    /// Tell the version.
    Version,
    /// Run an image.
    Run(Options),
}

/// An image and its devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Memory in MiB, if the user says so.
    pub memory_mib: Option<u64>,
    /// Taps by names of network devices.
    pub nets: Vec<(String, String)>,
    /// Link-layer addresses by names of network devices.
    pub macs: Vec<(String, [u8; 6])>,
    /// Files by names of block devices.
    pub blocks: Vec<(String, String)>,
    /// Sizes of sectors in bytes by names of block devices.
    pub sectors: Vec<(String, u16)>,
    /// Directory for a core file, if the guest aborts.
    pub core_directory: Option<String>,
    /// The image's file.
    pub image: String,
    /// The guest's command line.
    pub arguments: String,
}

/// How it is called.
pub const USAGE: &str = "\
Usage: solo5-hvt [OPTIONS] [--] IMAGE [ARGUMENT...]

  --mem=MIB                       memory of the guest in MiB (default 512)
  --net:NAME=TAP                  network device NAME is the tap TAP
  --net-mac:NAME=ADDRESS          its link-layer address
  --block:NAME=FILE               block device NAME is FILE
  --block-sector-size:NAME=BYTES  size of its sectors (default 512)
  --dumpcore=DIR                  write a core file into DIR if the guest aborts
  --help, --version
";

/// Most characters of a device's name.
const MAX_NAME_CHARACTERS: usize = 67;

/// Reads arguments, without the program's name.
///
/// # Errors
/// Says which of them is wrong, and how.
pub fn parse(arguments: &[String]) -> Result<Command, String> {
    let mut options = Options::default();
    let mut arguments = arguments.iter();
    for argument in arguments.by_ref() {
        match argument.as_str() {
            "--help" => return Ok(Command::Help),
            "--version" => return Ok(Command::Version),
            "--" => {
                options.image = arguments.next().cloned().unwrap_or_default();
                break;
            }
            option if option.starts_with('-') => read_option(option, &mut options)?,
            image => {
                image.clone_into(&mut options.image);
                break;
            }
        }
    }
    if options.image.is_empty() {
        return Err("Missing KERNEL operand: name the image's file".to_owned());
    }
    options.arguments = arguments.cloned().collect::<Vec<_>>().join(" ");
    Ok(Command::Run(options))
}

fn read_option(option: &str, options: &mut Options) -> Result<(), String> {
    let invalid = || format!("Invalid option: `{option}'");
    if let Some(mib) = option.strip_prefix("--mem=") {
        let mib = mib.parse().ok().filter(|mib| *mib > 0);
        options.memory_mib = Some(mib.ok_or("Malformed argument to --mem: a number of MiB")?);
        return Ok(());
    }
    if let Some(directory) = option.strip_prefix("--dumpcore=") {
        options.core_directory = Some(directory.to_owned());
        return Ok(());
    }
    let device = |prefix: &str| -> Option<(String, &str)> {
        let (name, value) = option.strip_prefix(prefix)?.split_once('=')?;
        let is_name = (1..=MAX_NAME_CHARACTERS).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (is_name && !value.is_empty()).then(|| (name.to_owned(), value))
    };
    if let Some((name, tap)) = device("--net:") {
        options.nets.push((name, tap.to_owned()));
    } else if let Some((name, address)) = device("--net-mac:") {
        let address = mac(address).ok_or_else(invalid)?;
        options.macs.push((name, address));
    } else if let Some((name, file)) = device("--block:") {
        options.blocks.push((name, file.to_owned()));
    } else if let Some((name, bytes)) = device("--block-sector-size:") {
        let bytes: u16 = bytes.parse().map_err(|_| invalid())?;
        if bytes < 512 || !bytes.is_power_of_two() {
            return Err("Block size must be a multiple of 2 greater than or equal 512".to_owned());
        }
        options.sectors.push((name, bytes));
    } else {
        return Err(invalid());
    }
    Ok(())
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| {
            u8::from_str_radix(part, 16)
                .ok()
                .filter(|_| part.len() <= 2)
        })
        .collect();
    bytes?.try_into().ok()
}

impl Options {
    /// What was said last of a device.
    #[must_use]
    pub fn of<'list, Value>(list: &'list [(String, Value)], name: &str) -> Option<&'list Value> {
        let mut said = list.iter().rev();
        said.find(|(of, _)| of == name).map(|(_, value)| value)
    }

    /// The names of all devices that are told of, with their kind.
    pub fn names(&self) -> impl Iterator<Item = (&str, gamut_abi::guest::solo5::DeviceKind)> {
        use gamut_abi::guest::solo5::DeviceKind::{Block, Net};
        let nets = self.nets.iter().map(|one| (one.0.as_str(), Net));
        let macs = self.macs.iter().map(|one| (one.0.as_str(), Net));
        let blocks = self.blocks.iter().map(|one| (one.0.as_str(), Block));
        let sectors = self.sectors.iter().map(|one| (one.0.as_str(), Block));
        nets.chain(macs).chain(blocks).chain(sectors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, String> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn everything_is_read() {
        let line = "--dumpcore=/d --mem=64 --net:service=tap0 --net-mac:service=02:0:0:0:0:a \
                    --block:storage=/a=b --block-sector-size:storage=4096 -- image.hvt --a -- b";
        let expected = Options {
            memory_mib: Some(64),
            nets: vec![("service".to_owned(), "tap0".to_owned())],
            macs: vec![("service".to_owned(), [2, 0, 0, 0, 0, 10])],
            blocks: vec![("storage".to_owned(), "/a=b".to_owned())],
            sectors: vec![("storage".to_owned(), 4096)],
            core_directory: Some("/d".to_owned()),
            image: "image.hvt".to_owned(),
            arguments: "--a -- b".to_owned(),
        };
        assert_eq!(read(line), Ok(Command::Run(expected)));
        assert_eq!(read("--mem=1 --help"), Ok(Command::Help));
        assert_eq!(read("--version"), Ok(Command::Version));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for line in ["--mem=1", "--"] {
            assert!(read(line).unwrap_err().starts_with("Missing KERNEL"));
        }
        assert!(read("--mem=x a").unwrap_err().contains("--mem"));
        assert!(
            read("--block-sector-size:a=521 x")
                .unwrap_err()
                .starts_with("Block size must")
        );
        for option in [
            "--net:=tap0",
            "--net:a-b=tap0",
            "--net:a=",
            "--net-mac:a=1:2:3:4:5",
            "--what",
            "-v",
        ] {
            let error = read(&format!("{option} image")).unwrap_err();
            assert!(error.starts_with("Invalid option"), "{error}");
        }
    }
}
