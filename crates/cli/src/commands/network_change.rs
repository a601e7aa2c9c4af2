//! Verbs that change networks.

use std::sync::Arc;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::query::segment;
use crate::client::{Client, Query};
use crate::commands::{Verb, confirm, for_each, list, text};
use crate::error::Error;
use crate::output::print;
use crate::parse::{environment, files, filter, network};

fn path(name: &str) -> String {
    format!("/networks/{}", segment(name).replace('/', "%2F"))
}

fn options(flag: &str, texts: &[String]) -> Result<Map<String, Value>, Error> {
    let mut options = Map::new();
    for text in texts {
        let (name, value) = environment::key_value(flag, text)?;
        options.insert(name, value.into());
    }
    Ok(options)
}

/// Flags of `gamut network create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// Enable manual container attachment
    #[arg(long)]
    pub attachable: bool,
    /// Auxiliary IPv4 or IPv6 addresses used by network driver
    #[arg(long, value_name = "NAME=IP")]
    pub aux_address: Vec<String>,
    /// The network from which to copy the configuration
    #[arg(long, value_name = "NETWORK")]
    pub config_from: Option<String>,
    /// Create a configuration only network
    #[arg(long)]
    pub config_only: bool,
    /// Driver to manage the network
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge")]
    pub driver: String,
    /// IPv4 or IPv6 gateway for the subnet
    #[arg(long, value_name = "IP")]
    pub gateway: Vec<String>,
    /// Restrict external access to the network
    #[arg(long)]
    pub internal: bool,
    /// Allocate container addresses from a sub-range
    #[arg(long, value_name = "CIDR")]
    pub ip_range: Vec<String>,
    /// IP address management driver
    #[arg(long, value_name = "DRIVER", default_value = "default")]
    pub ipam_driver: String,
    /// Set IPAM driver specific options
    #[arg(long, value_name = "KEY=VALUE")]
    pub ipam_opt: Vec<String>,
    /// Enable or disable IPv4 address assignment
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ipv4: Option<bool>,
    /// Enable or disable IPv6 address assignment
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub ipv6: Option<bool>,
    /// Set metadata on a network
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Set driver specific options
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// Subnet in CIDR format that represents a network segment
    #[arg(long, value_name = "CIDR")]
    pub subnet: Vec<String>,
    /// Name of the network
    #[arg(value_name = "NETWORK")]
    pub name: String,
}

impl Verb for CreateArguments {
    const USAGE: &'static str = "[OPTIONS] NETWORK";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let config = network::subnets(
            &self.subnet,
            &self.ip_range,
            &self.gateway,
            &self.aux_address,
        )?;
        let mut body = json!({
            "Name": self.name,
            "Driver": self.driver,
            "Internal": self.internal,
            "Attachable": self.attachable,
            "IPAM": {
                "Driver": self.ipam_driver,
                "Options": options("--ipam-opt", &self.ipam_opt)?,
                "Config": config,
            },
            "Options": options("--opt", &self.opt)?,
            "Labels": files::labels(&[], &self.label)?,
        });
        if let Some(ipv4) = self.ipv4 {
            body["EnableIPv4"] = ipv4.into();
        }
        if let Some(ipv6) = self.ipv6 {
            body["EnableIPv6"] = ipv6.into();
        }
        if self.config_only {
            body["ConfigOnly"] = true.into();
        }
        if let Some(from) = &self.config_from {
            body["ConfigFrom"] = json!({"Network": from});
        }
        let answer = client
            .post("/networks/create", &Query::new(), &body)
            .await?;
        print::line(text(&answer, "Id"))?;
        Ok(0)
    }
}

/// Flags of `gamut network rm`.
#[derive(Debug, Args)]
pub struct RemoveArguments {
    /// Do not error if the network does not exist
    #[arg(short, long)]
    pub force: bool,
    /// The networks
    #[arg(value_name = "NETWORK", required = true)]
    pub networks: Vec<String>,
}

impl Verb for RemoveArguments {
    const USAGE: &'static str = "NETWORK [NETWORK...]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let force = self.force;
        for_each(&self.networks, |name| {
            let client = client.clone();
            async move {
                match client.delete(&path(&name), &Query::new()).await {
                    Err(Error::Api { status: 404, .. }) if force => Ok(None),
                    Err(error) => Err(error),
                    Ok(_) => Ok(Some(name)),
                }
            }
        })
        .await
    }
}

/// Flags of `gamut network connect`.
#[derive(Debug, Args)]
pub struct ConnectArguments {
    /// Add network-scoped alias for the container
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    /// Driver options for the network
    #[arg(long, value_name = "KEY=VALUE")]
    pub driver_opt: Vec<String>,
    /// Highest gw-priority provides the default gateway. Accepts positive and negative values
    #[arg(long, value_name = "NUMBER")]
    pub gw_priority: Option<i64>,
    /// IPv4 address (e.g., "172.30.100.104")
    #[arg(long, value_name = "IP")]
    pub ip: Option<String>,
    /// IPv6 address (e.g., "2001:db8::33")
    #[arg(long, value_name = "IP")]
    pub ip6: Option<String>,
    /// Add link to another container
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    pub link: Vec<String>,
    /// The network
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

impl Verb for ConnectArguments {
    const USAGE: &'static str = "[OPTIONS] NETWORK CONTAINER";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let mut attachment = network::Attachment::default();
        let (ip, ip6) = (self.ip.as_deref(), self.ip6.as_deref());
        attachment.extend(ip, ip6, &self.alias, &self.link)?;
        let mut endpoint = Value::Object(attachment.endpoint);
        if !self.driver_opt.is_empty() {
            endpoint["DriverOpts"] = options("--driver-opt", &self.driver_opt)?.into();
        }
        if let Some(priority) = self.gw_priority {
            endpoint["GwPriority"] = priority.into();
        }
        let body = json!({"Container": self.container, "EndpointConfig": endpoint});
        let path = format!("{}/connect", path(&self.network));
        client.post(&path, &Query::new(), &body).await?;
        Ok(0)
    }
}

/// Flags of `gamut network disconnect`.
#[derive(Debug, Args)]
pub struct DisconnectArguments {
    /// Force the container to disconnect from a network
    #[arg(short, long)]
    pub force: bool,
    /// The network
    #[arg(value_name = "NETWORK")]
    pub network: String,
    /// The container
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

impl Verb for DisconnectArguments {
    const USAGE: &'static str = "[OPTIONS] NETWORK CONTAINER";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let body = json!({"Container": self.container, "Force": self.force});
        let path = format!("{}/disconnect", path(&self.network));
        client.post(&path, &Query::new(), &body).await?;
        Ok(0)
    }
}

/// Flags of `gamut network prune`.
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// Provide filter values (e.g. "until=<timestamp>")
    #[arg(long, value_name = "NAME=VALUE")]
    pub filter: Vec<String>,
    /// Do not prompt for confirmation
    #[arg(short, long)]
    pub force: bool,
}

impl Verb for PruneArguments {
    const USAGE: &'static str = "[OPTIONS]";

    async fn run(self, client: Arc<Client>) -> Result<u8, Error> {
        let filters = filter::parse(&self.filter)?;
        let warning = "This will remove all custom networks not used by at least one container.";
        confirm("network prune", warning, self.force)?;
        let query = Query::new().maybe("filters", filters.as_deref());
        let answer = client.post("/networks/prune", &query, &Value::Null).await?;
        let deleted: Vec<&str> = list(&answer, "NetworksDeleted")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if !deleted.is_empty() {
            print::line(&format!("Deleted Networks:\n{}\n", deleted.join("\n")))?;
        }
        Ok(0)
    }
}
