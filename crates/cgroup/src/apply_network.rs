//! Classes and priorities of packets (Linux `Documentation/admin-guide/cgroup-v1/net_cls.rst` and
//! `net_prio.rst`). They are matters of security to whoever asks for them, and cgroup v2 has no
//! counterpart, so a machine without these controllers refuses them.

use crate::apply::{Apply, check_name};
use crate::controller::Controller;
use crate::error::Error;
use crate::group::Group;
use gamut_abi::resources::Resources;

const WAY_OUT: &str = "the machine has no such cgroup v1 controller; match the control group with nftables (socket cgroupv2) instead";

fn missing(group: &Group, controller: Controller) -> Option<Error> {
    if group.hierarchies.locate(controller).is_some() {
        return None;
    }
    let file = match controller {
        Controller::NetCls => "net_cls.classid",
        _ => "net_prio.ifpriomap",
    };
    Some(Error::invalid("set network resource", file, WAY_OUT))
}

/// Refuses what could not be set, before anything is.
pub(crate) fn check(group: &Group, resources: &Resources) -> Result<(), Error> {
    let class = resources.network_class.map(|_| Controller::NetCls);
    let priorities = resources
        .network_priorities
        .first()
        .map(|_| Controller::NetPrio);
    for controller in [class, priorities].into_iter().flatten() {
        if let Some(error) = missing(group, controller) {
            return Err(error);
        }
    }
    resources
        .network_priorities
        .iter()
        .try_for_each(|(interface, _)| check_name(interface))
}

/// Sets them.
pub(crate) fn apply(apply: &mut Apply<'_>, resources: &Resources) -> Result<(), Error> {
    let hierarchies = &apply.group.hierarchies;
    if let (Some(class), Some(hierarchy)) = (
        resources.network_class,
        hierarchies.locate(Controller::NetCls),
    ) {
        apply
            .group
            .write(hierarchy, "net_cls.classid", &class.to_string())?;
    }
    if let Some(hierarchy) = hierarchies.locate(Controller::NetPrio) {
        for (interface, priority) in &resources.network_priorities {
            let line = [interface, " ", &priority.to_string()].concat();
            apply.group.write(hierarchy, "net_prio.ifpriomap", &line)?;
        }
    }
    Ok(())
}
