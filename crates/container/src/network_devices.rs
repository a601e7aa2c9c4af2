//! Interfaces that move from the caller's network namespace into the container's, with their
//! addresses (OCI runtime-spec config-linux.md, "Network Devices").

use crate::error::{Context, Error};
use crate::netlink::Netlink;
use crate::sys::{self, SysResult};
use gamut_abi::plan::{NetworkDevice, Plan};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Moves a plan's interfaces to the container whose first process is `pid`. The caller has one
/// thread, and for a moment that is in the container's network namespace.
pub(crate) fn move_all(plan: &Plan, pid: u32) -> Result<(), Error> {
    if plan.network_devices.is_empty() {
        return Ok(());
    }
    let namespace = open_namespace(&["/proc/", &pid.to_string(), "/ns/net"].concat())
        .doing("open", "the container's network namespace")?;
    let here = Netlink::open().doing("open", "a netlink socket")?;
    let there = open_inside(namespace.as_fd())?;
    for device in &plan.network_devices {
        move_one(device, &here, &there, namespace.as_fd()).map_err(|errno| {
            let detail = match errno.0 {
                libc::ENODEV => "there is no such interface",
                libc::EEXIST => "the container has an interface of that name",
                libc::EINVAL => "this kind of interface is tied to its network namespace",
                _ => "",
            };
            let what = [
                "move network interface ",
                &device.name,
                " into the container as ",
                &device.container_name,
                " (linux.netDevices)",
            ];
            Error::with_detail(&what.concat(), errno, detail)
        })?;
    }
    Ok(())
}

fn open_namespace(path: &str) -> SysResult<OwnedFd> {
    sys::open(sys::cwd(), &sys::c_string(path)?, libc::O_RDONLY)
}

/// A socket belongs to the namespace that it is made in, whoever uses it.
fn open_inside(namespace: BorrowedFd<'_>) -> Result<Netlink, Error> {
    let own = open_namespace("/proc/self/ns/net").doing("open", "the own network namespace")?;
    sys::setns(namespace, libc::CLONE_NEWNET)
        .doing("enter", "the container's network namespace")?;
    let socket = Netlink::open();
    if let Err(errno) = sys::setns(own.as_fd(), libc::CLONE_NEWNET) {
        // Going on would be on the wrong side. It takes the rights that have just sufficed.
        return Err(Error::system("return to the own network namespace", errno));
    }
    socket.doing("open", "a netlink socket in the container")
}

fn move_one(
    device: &NetworkDevice,
    here: &Netlink,
    there: &Netlink,
    namespace: BorrowedFd<'_>,
) -> SysResult<()> {
    let index = here.index(&device.name)?;
    let addresses = here.addresses(index)?;
    // It loses its addresses on the way, and cannot be renamed while it is up.
    here.set_up(index, false)?;
    here.move_to(index, namespace, &device.container_name)?;
    let index = there.index(&device.container_name)?;
    for address in &addresses {
        there.add_address(index, address)?;
    }
    there.set_up(index, true)
}
