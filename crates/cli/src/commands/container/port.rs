//! `port`.

use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::path;
use crate::client::{Client, Query};
use crate::commands::{Verb, text};
use crate::error::Error;
use crate::output::print;

/// Flags of `gamut port`.
#[derive(Debug, Args)]
pub struct PortArguments {
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Only this port of the container
    #[arg(value_name = "PRIVATE_PORT[/PROTOCOL]")]
    pub port: Option<String>,
}

impl Verb for PortArguments {
    const USAGE: &'static str = "CONTAINER [PRIVATE_PORT[/PROTOCOL]]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let details = client
            .get(&path(&self.container, "json"), &Query::new())
            .await?;
        let ports = details
            .pointer("/NetworkSettings/Ports")
            .and_then(Value::as_object);
        let wanted = self.port.as_ref().map(|port| match port.contains('/') {
            true => port.clone(),
            false => format!("{port}/tcp"),
        });
        let mut lines = Vec::new();
        for (port, bindings) in ports.into_iter().flatten() {
            if wanted.as_ref().is_some_and(|wanted| wanted != port) {
                continue;
            }
            for binding in bindings.as_array().map(Vec::as_slice).unwrap_or_default() {
                let host = address(text(binding, "HostIp"), text(binding, "HostPort"));
                lines.push(match wanted {
                    Some(_) => host,
                    None => format!("{port} -> {host}"),
                });
            }
        }
        if lines.is_empty()
            && let Some(port) = &self.port
        {
            return Err(Error::Message(format!(
                "no public port '{port}' published for {}",
                self.container
            )));
        }
        for line in lines {
            print::line(&line)?;
        }
        Ok(0)
    }
}

fn address(ip: &str, port: &str) -> String {
    if ip.contains(':') {
        format!("[{ip}]:{port}")
    } else {
        format!("{ip}:{port}")
    }
}
