//! Doing without control groups, where an ordinary user has none delegated.

use super::ContainerLevel;
use super::call::Call;
use crate::error::Error;
use gamut_abi::plan::Plan;
use gamut_abi::resources::Resources;

impl ContainerLevel {
    /// Refuses what needs control groups where there are none.
    pub(super) fn need_groups(&self, call: &Call<'_>) -> Result<(), Error> {
        match &self.without_groups {
            None => Ok(()),
            Some(reason) => Err(call.state(format!("it has no control group: {reason}"))),
        }
    }

    /// Takes the control group out of a plan where there are none; says what is lost by that.
    pub(super) fn without_groups(&self, plan: &mut Plan) -> Vec<String> {
        let Some(reason) = &self.without_groups else {
            return Vec::new();
        };
        let Some(cgroup) = plan.cgroup.take() else {
            return Vec::new();
        };
        asked(&cgroup.resources)
            .into_iter()
            .map(|limit| format!("{limit} is not limited: {reason}"))
            .collect()
    }
}

/// What limits ask for, in words. Device rules are none: in a user namespace nobody can make a
/// device.
fn asked(resources: &Resources) -> Vec<&'static str> {
    let Resources {
        cpu,
        memory,
        pids_max,
        io,
        hugetlb,
        devices: _,
        unified,
    } = resources;
    let asked = [
        (*memory != Default::default(), "memory"),
        (*cpu != Default::default(), "processor time"),
        (pids_max.is_some(), "the number of processes"),
        (*io != Default::default(), "block I/O"),
        (!hugetlb.is_empty(), "huge pages"),
        (!unified.is_empty(), "what linux.resources.unified names"),
    ];
    asked
        .into_iter()
        .filter_map(|(asked, what)| asked.then_some(what))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gamut_abi::resources::Limit;

    #[test]
    fn only_what_was_asked_for_is_named() {
        assert!(asked(&Resources::default()).is_empty());
        let mut resources = Resources {
            pids_max: Some(Limit::Value(5)),
            ..Resources::default()
        };
        resources.memory.max_bytes = Some(Limit::Value(1 << 20));
        assert_eq!(asked(&resources), ["memory", "the number of processes"]);
    }
}
