//! `info`.

use std::fmt::Write as _;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use crate::client::{Client, Query};
use crate::commands::{Verb, list, number, print_formatted, text};
use crate::error::Error;
use crate::output::{print, units};

/// Flags of `gamut info`.
#[derive(Debug, Args)]
pub struct InfoArguments {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

impl Verb for InfoArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let answer = client.get_text("/info", &Query::new()).await?;
        if let Some(format) = &self.format {
            print_formatted(&answer, format)?;
            return Ok(0);
        }
        let info: Value = serde_json::from_str(&answer).map_err(|error| Error::Answer {
            operation: "GET /info".into(),
            reason: error.to_string(),
        })?;
        print::out(&describe(&info))?;
        for warning in list(&info, "Warnings") {
            print::note(warning.as_str().unwrap_or_default());
        }
        Ok(0)
    }
}

fn describe(info: &Value) -> String {
    let mut out = format!(
        "Client:\n Version:    {}\n\nServer:\n",
        env!("CARGO_PKG_VERSION")
    );
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(out, " {name}: {value}");
        }
    };
    let count = |name: &str| number(info, name).to_string();
    line("Containers", &count("Containers"));
    line(" Running", &count("ContainersRunning"));
    line(" Paused", &count("ContainersPaused"));
    line(" Stopped", &count("ContainersStopped"));
    line("Images", &count("Images"));
    line("Server Version", text(info, "ServerVersion"));
    line("Storage Driver", text(info, "Driver"));
    for pair in list(info, "DriverStatus") {
        if let Some([name, value]) = pair.as_array().map(Vec::as_slice) {
            let name = format!(" {}", name.as_str().unwrap_or_default());
            line(&name, value.as_str().unwrap_or_default());
        }
    }
    line("Logging Driver", text(info, "LoggingDriver"));
    line("Cgroup Driver", text(info, "CgroupDriver"));
    line("Cgroup Version", text(info, "CgroupVersion"));
    let mut runtimes: Vec<&str> = info
        .get("Runtimes")
        .and_then(Value::as_object)
        .map(|runtimes| runtimes.keys().map(String::as_str).collect())
        .unwrap_or_default();
    runtimes.sort_unstable();
    line("Runtimes", &runtimes.join(" "));
    line("Default Runtime", text(info, "DefaultRuntime"));
    let security: Vec<&str> = list(info, "SecurityOptions")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    line("Security Options", &security.join(" "));
    line("Kernel Version", text(info, "KernelVersion"));
    line("Operating System", text(info, "OperatingSystem"));
    line("OSType", text(info, "OSType"));
    line("Architecture", text(info, "Architecture"));
    line("CPUs", &count("NCPU"));
    let memory = u64::try_from(number(info, "MemTotal")).unwrap_or(0);
    line("Total Memory", &units::size_binary(memory));
    line("Name", text(info, "Name"));
    line("ID", text(info, "ID"));
    line("Gamut Root Dir", text(info, "DockerRootDir"));
    out
}
