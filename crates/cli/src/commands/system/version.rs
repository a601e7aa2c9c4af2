//! `version`.

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use crate::client::{Client, Query};
use crate::commands::{Verb, print_formatted, text};
use crate::error::Error;
use crate::output::print;

/// Flags of `gamut version`.
#[derive(Debug, Args)]
pub struct VersionArguments {
    /// Format output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

impl Verb for VersionArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        // The client's half is worth showing when the engine is down.
        let server = client.get("/version", &Query::new()).await;
        let mine = json!({
            "Version": env!("CARGO_PKG_VERSION"),
            "ApiVersion": "1.51",
            "Os": std::env::consts::OS,
            "Arch": std::env::consts::ARCH,
        });
        if let Some(format) = &self.format {
            let both = json!({"Client": mine, "Server": server.as_ref().unwrap_or(&Value::Null)});
            print_formatted(&both.to_string(), format)?;
        } else {
            print::out(&format!("Client:\n{}", describe(&mine)))?;
            if let Ok(server) = &server {
                print::out(&format!("\nServer:\n{}", describe(server)))?;
            }
        }
        server.map(|_| 0)
    }
}

fn describe(version: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            out.push_str(&format!(" {name:<17} {value}\n"));
        }
    };
    line("Version:", text(version, "Version"));
    let minimum = match text(version, "MinAPIVersion") {
        "" => String::new(),
        minimum => format!(" (minimum version {minimum})"),
    };
    line(
        "API version:",
        &format!("{}{minimum}", text(version, "ApiVersion")),
    );
    line("Git commit:", text(version, "GitCommit"));
    line("Built:", text(version, "BuildTime"));
    line("Kernel:", text(version, "KernelVersion"));
    line(
        "OS/Arch:",
        &format!("{}/{}", text(version, "Os"), text(version, "Arch")),
    );
    out
}
