//! Doing without control groups, where an ordinary user has none delegated.

use super::ContainerLevel;
use super::call::Call;
use crate::error::Error;
use gamut_abi::plan::Plan;

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
        cgroup
            .resources
            .asked()
            .into_iter()
            .map(|limit| format!("{limit} is not limited: {reason}"))
            .collect()
    }
}
