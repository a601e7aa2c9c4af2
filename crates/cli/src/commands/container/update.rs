//! `update`.

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::config::set;
use super::path;
use crate::client::{Client, Query};
use crate::commands::{Verb, for_each, list};
use crate::error::Error;
use crate::output::print;
use crate::parse::{limits, policy};

/// Flags of `gamut update`.
#[derive(Debug, Args)]
pub struct UpdateArguments {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u16>,
    /// Limit CPU CFS (Completely Fair Scheduler) period, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota, in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_quota: Option<i64>,
    /// Limit CPU real-time period in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_rt_period: Option<i64>,
    /// Limit CPU real-time runtime in microseconds
    #[arg(long, value_name = "US")]
    pub cpu_rt_runtime: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short, long, value_name = "SHARES")]
    pub cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_name = "DECIMAL")]
    pub cpus: Option<String>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Memory soft limit
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<String>,
    /// Swap limit equal to memory plus swap: -1 to enable unlimited swap
    #[arg(long, value_name = "BYTES")]
    pub memory_swap: Option<String>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long, value_name = "COUNT")]
    pub pids_limit: Option<i64>,
    /// Restart policy to apply when a container exits
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// The containers
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

impl Verb for UpdateArguments {
    const USAGE: &'static str = "[OPTIONS] CONTAINER [CONTAINER...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let mut body = json!({});
        set(&mut body, "BlkioWeight", self.blkio_weight);
        set(&mut body, "CpuPeriod", self.cpu_period);
        set(&mut body, "CpuQuota", self.cpu_quota);
        set(&mut body, "CpuRealtimePeriod", self.cpu_rt_period);
        set(&mut body, "CpuRealtimeRuntime", self.cpu_rt_runtime);
        set(&mut body, "CpuShares", self.cpu_shares);
        set(&mut body, "CpusetCpus", self.cpuset_cpus.as_deref());
        set(&mut body, "CpusetMems", self.cpuset_mems.as_deref());
        set(&mut body, "PidsLimit", self.pids_limit);
        if let Some(text) = &self.cpus {
            body["NanoCpus"] = limits::cpus_to_nano(text)?.into();
        }
        if let Some(text) = &self.memory {
            body["Memory"] = limits::bytes("--memory", text)?.into();
        }
        if let Some(text) = &self.memory_reservation {
            body["MemoryReservation"] = limits::bytes("--memory-reservation", text)?.into();
        }
        if let Some(text) = &self.memory_swap {
            body["MemorySwap"] = limits::memory_swap(text)?.into();
        }
        if let Some(text) = &self.restart {
            body["RestartPolicy"] = policy::restart(text)?;
        }
        if body == json!({}) {
            return Err(Error::Usage(
                "you must provide one or more flags when using this command".into(),
            ));
        }
        for_each(&self.containers, |name| {
            let (client, body) = (client.clone(), body.clone());
            async move {
                let answer = client
                    .post(&path(&name, "update"), &Query::new(), &body)
                    .await?;
                for warning in list(&answer, "Warnings") {
                    print::note(warning.as_str().unwrap_or_default());
                }
                Ok(Some(name))
            }
        })
        .await
    }
}
