//! QEMU's command line for a machine of ours.

use std::fmt::Write as _;
use std::os::fd::RawFd;
use std::path::Path;

use gamut_abi::guest::control_line;

/// Where distributions put it. Debian, Ubuntu, Fedora; Red Hat.
const PROGRAMS: [&str; 3] = [
    "/usr/bin/qemu-system-x86_64",
    "/usr/local/bin/qemu-system-x86_64",
    "/usr/libexec/qemu-kvm",
];

/// Room for translated code, in MiB: without a limit QEMU takes a quarter of the machine.
const TRANSLATION_MIB: u32 = 32;

/// As few devices as a PC can have, and their registers where the guest is told.
const MACHINE: &str = "microvm,acpi=off,pic=on,pit=on,rtc=on,ioapic2=on,isa-serial=off,\
                       auto-kernel-cmdline=on";

/// What QEMU forbids itself: old system calls, new privileges, processes, scheduling.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Virtio devices that such a machine has places for.
pub(super) const MAX_DEVICES: usize = 24;

/// A network device.
#[derive(Debug)]
pub(super) struct Nic {
    pub(super) descriptor: RawFd,
    /// It is a socket, a frame a datagram; otherwise a tap.
    pub(super) is_socket: bool,
    pub(super) mac: [u8; 6],
}

/// A block device.
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) descriptor: RawFd,
    pub(super) bytes: u64,
    pub(super) is_device: bool,
    pub(super) is_read_only: bool,
}

/// What the machine is made of.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) memory_bytes: u64,
    pub(super) kernel: &'a Path,
    pub(super) module: &'a Path,
    pub(super) control_line: RawFd,
    pub(super) nics: &'a [Nic],
    pub(super) disks: &'a [Disk],
}

/// The program, if it is installed.
pub(super) fn program() -> Option<&'static Path> {
    PROGRAMS.iter().map(Path::new).find(|path| path.exists())
}

/// Its arguments. Console: standard input and output.
pub(super) fn arguments(parts: &Parts<'_>) -> Vec<String> {
    // QEMU wants multiples of 8 KiB.
    let memory_kib = parts.memory_bytes.div_ceil(8192) * 8;
    let mut words: Vec<String> = [
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
        "-display",
        "none",
        "-msg",
        "timestamp=off",
        "-machine",
        MACHINE,
        "-cpu",
        "max",
        "-smp",
        "1",
        "-rtc",
        "base=utc,clock=host",
        "-sandbox",
        SANDBOX,
        "-global",
        "virtio-mmio.force-legacy=false",
        "-device",
        "isa-debug-exit,iobase=0xf4,iosize=4",
        "-chardev",
        "stdio,id=console,signal=off",
        "-device",
        "isa-serial,chardev=console,iobase=0x3f8,irq=4",
    ]
    .map(str::to_owned)
    .into();
    let mut option = |name: &str, value: String| words.extend([name.to_owned(), value]);
    option("-accel", format!("tcg,tb-size={TRANSLATION_MIB}"));
    option("-m", format!("{memory_kib}K"));
    option("-kernel", path(parts.kernel));
    option("-initrd", path(parts.module));
    option(
        "-chardev",
        format!("socket,id=control,fd={}", parts.control_line),
    );
    option(
        "-device",
        format!(
            "isa-serial,chardev=control,iobase={:#x},irq={}",
            control_line::PORT,
            control_line::INTERRUPT_LINE
        ),
    );
    for (index, nic) in parts.nics.iter().enumerate() {
        let mac: Vec<String> = nic.mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let kind = if nic.is_socket { "socket" } else { "tap" };
        option(
            "-netdev",
            format!("{kind},id=net{index},fd={}", nic.descriptor),
        );
        option(
            "-device",
            format!(
                "virtio-net-device,netdev=net{index},mac={},bus=virtio-mmio-bus.{index}",
                mac.join(":")
            ),
        );
    }
    for (index, disk) in parts.disks.iter().enumerate() {
        let (driver, access) = (
            if disk.is_device {
                "host_device"
            } else {
                "file"
            },
            if disk.is_read_only { "on" } else { "off" },
        );
        option(
            "-add-fd",
            format!("fd={},set={}", disk.descriptor, index + 1),
        );
        let mut file = format!("driver={driver},node-name=file{index},");
        let _ = write!(
            file,
            "filename=/dev/fdset/{},read-only={access},locking=off,discard=unmap",
            index + 1
        );
        option("-blockdev", file);
        option(
            "-blockdev",
            format!(
                "driver=raw,node-name=disk{index},file=file{index},size={},read-only={access},\
                 discard=unmap",
                disk.bytes
            ),
        );
        option(
            "-device",
            format!(
                "virtio-blk-device,drive=disk{index},bus=virtio-mmio-bus.{}",
                parts.nics.len() + index
            ),
        );
    }
    words
}

/// A path that is a whole argument.
fn path(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_come_in_the_order_of_their_indices() {
        let nic = |descriptor| Nic {
            descriptor,
            is_socket: descriptor == 5,
            mac: [2, 0, 0, 0, 0, 0xab],
        };
        let parts = Parts {
            memory_bytes: (8 << 20) + 1,
            kernel: Path::new("/s/kernel"),
            module: Path::new("/s/module"),
            control_line: 9,
            nics: &[nic(5), nic(6)],
            disks: &[Disk {
                descriptor: 7,
                bytes: 1024,
                is_device: false,
                is_read_only: true,
            }],
        };
        let line = arguments(&parts).join(" ");
        for part in [
            "-m 8200K ",
            "-accel tcg,tb-size=32 ",
            "-netdev socket,id=net0,fd=5 ",
            "-netdev tap,id=net1,fd=6 ",
            "mac=02:00:00:00:00:ab,bus=virtio-mmio-bus.1 ",
            "-add-fd fd=7,set=1 ",
            "filename=/dev/fdset/1,read-only=on",
            "size=1024,read-only=on",
            "virtio-blk-device,drive=disk0,bus=virtio-mmio-bus.2",
            "-chardev socket,id=control,fd=9 ",
            "-sandbox on,",
        ] {
            assert!(line.contains(part), "{part}: {line}");
        }
    }
}
