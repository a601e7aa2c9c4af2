//! A tap: frames of the guest as reads and writes of a file (Documentation/networking/tuntap.rst).

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::resolver::Resolver;
use crate::config_text::NicConfig;
use crate::device::{Lost, Nic};
use crate::error::{Error, Result};

const DEVICE: &str = "/dev/net/tun";
/// The kernel puts a number there.
const NAME_PATTERN: &str = "gamut-tap%d";

/// A tap that is the guest's network device.
#[derive(Debug)]
pub struct Tap {
    file: File,
    /// Takes the guest's questions for names.
    resolver: Option<Resolver>,
    /// What the guest is told of it.
    pub config: NicConfig,
}

impl Tap {
    /// Makes a tap of this network namespace: it and the index of its interface. It goes when it
    /// is closed.
    pub(super) fn create(config: NicConfig) -> Result<(Self, u32)> {
        let (file, name) = attach(NAME_PATTERN).map_err(|error| {
            Error::system(
                format!("make a tap for network interface {}", config.interface),
                error,
            )
            .with_advice("the monitor needs /dev/net/tun and CAP_NET_ADMIN over its namespace")
        })?;
        // SAFETY: a string that ends.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(Error::last("find the interface of the tap just made"));
        }
        let tap = Self {
            file,
            resolver: None,
            config,
        };
        Ok((tap, index))
    }

    /// Opens a tap that somebody has prepared.
    pub(super) fn open(config: NicConfig) -> Result<Self> {
        let (file, _) = attach(&config.interface).map_err(|error| Error::Network {
            interface: config.interface.clone(),
            problem: match error.raw_os_error() {
                Some(libc::EBUSY) => "another program uses this tap; stop it".to_owned(),
                _ => format!("open the tap: {error}"),
            },
        })?;
        Ok(Self {
            file,
            resolver: None,
            config,
        })
    }

    /// Lets the guest ask the resolver of this network namespace for names.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub(super) fn ask_resolver(&mut self) -> Result<()> {
        self.resolver = Some(Resolver::connect(self.config.mtu)?);
        Ok(())
    }

    /// The descriptor to wait on.
    #[must_use]
    pub fn descriptor(&self) -> i32 {
        self.file.as_raw_fd()
    }

    /// Further descriptors to wait on: those that bring answers of the resolver. None if the guest
    /// cannot ask it, and the file alone is the whole device.
    #[must_use]
    pub fn answer_descriptors(&self) -> Vec<i32> {
        let resolver = self.resolver.iter();
        resolver.flat_map(Resolver::descriptors).collect()
    }

    fn lost(&self, error: &io::Error) -> Lost {
        Lost(format!(
            "network interface {} is gone: {error}",
            self.config.interface
        ))
    }
}

/// Opens the device and binds it to a tap: the file and the interface's name.
fn attach(name: &str) -> io::Result<(File, std::ffi::CString)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(DEVICE)?;
    // SAFETY: an all-zero request is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or(0);
    // SAFETY: the request is valid for reads and writes.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel ends the name with a zero within the array, which lives on.
    let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
    Ok((file, name.to_owned()))
}

impl Nic for Tap {
    fn transmit(&mut self, frame: &[u8]) -> std::result::Result<bool, Lost> {
        if let Some(resolver) = &mut self.resolver
            && resolver.take(frame)
        {
            return Ok(true);
        }
        loop {
            let error = match self.file.write(frame) {
                Ok(_) => return Ok(true),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EBADFD | libc::ENODEV) => return Err(self.lost(&error)),
                // Full, down for a while, or no frame at all: dropped, as a cable would.
                _ => return Ok(false),
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> std::result::Result<Option<usize>, Lost> {
        if let Some(resolver) = &mut self.resolver
            && let Some(bytes) = resolver.receive(buffer)
        {
            return Ok(Some(bytes));
        }
        loop {
            let error = match self.file.read(buffer) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN) => return Ok(None),
                _ => return Err(self.lost(&error)),
            }
        }
    }
}
