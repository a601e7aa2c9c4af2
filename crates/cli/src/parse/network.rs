//! `--network`, `--link`, and the addresses of `network create`.

use serde_json::{Map, Value, json};
use std::net::IpAddr;

use super::{environment, invalid};
use crate::error::Error;

/// A network that a container is to be on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Name or id, or a mode such as `host`.
    pub network: String,
    /// The endpoint's settings, in the API's words.
    pub endpoint: Map<String, Value>,
}

impl Attachment {
    /// Sets a field that the long form may have set already.
    fn set(&mut self, field: &str, value: Value, flag: &str) -> Result<(), Error> {
        if self.endpoint.contains_key(field) {
            return Err(Error::Usage(format!(
                "conflicting options: cannot specify both {flag} and the same of --network"
            )));
        }
        self.endpoint.insert(field.to_owned(), value);
        Ok(())
    }

    fn ipam(&mut self, field: &str, address: &str, flag: &str) -> Result<(), Error> {
        let ipam = self
            .endpoint
            .entry("IPAMConfig")
            .or_insert_with(|| json!({}));
        if ipam.get(field).is_some() {
            return Err(Error::Usage(format!(
                "conflicting options: cannot specify both {flag} and the same of --network"
            )));
        }
        let is_four = field == "IPv4Address";
        let parsed = address.parse::<IpAddr>().ok();
        if parsed.is_none_or(|parsed| parsed.is_ipv4() != is_four) {
            return Err(invalid(flag, address, "it is no such address"));
        }
        ipam[field] = address.into();
        Ok(())
    }

    /// The setting of `--mac-address`.
    ///
    /// # Errors
    /// [`Error::Usage`] for what the long form has said already, and for networks without addresses
    /// of one's own.
    pub fn mac_address(&mut self, address: &str) -> Result<(), Error> {
        let is_shared = matches!(self.network.as_str(), "host" | "none");
        if is_shared || self.network.starts_with("container:") {
            return Err(Error::Usage(
                "conflicting options: mac-address and the network mode".to_owned(),
            ));
        }
        self.set("MacAddress", address.into(), "--mac-address")
    }

    /// The settings of `--ip`, `--ip6`, `--network-alias` and `--link`.
    ///
    /// # Errors
    /// [`Error::Usage`] for what the long form has said already, and for what is no address.
    pub fn extend(
        &mut self,
        ip: Option<&str>,
        ip6: Option<&str>,
        aliases: &[String],
        links: &[String],
    ) -> Result<(), Error> {
        if let Some(address) = ip {
            self.ipam("IPv4Address", address, "--ip")?;
        }
        if let Some(address) = ip6 {
            self.ipam("IPv6Address", address, "--ip6")?;
        }
        if !aliases.is_empty() {
            self.set("Aliases", aliases.into(), "--network-alias")?;
        }
        if !links.is_empty() {
            self.set("Links", links.into(), "--link")?;
        }
        Ok(())
    }
}

/// `--network NAME`, or `name=NAME,alias=A,ip=I,ip6=I,mac-address=M,driver-opt=K=V,gw-priority=N`.
///
/// # Errors
/// [`Error::Usage`] for unknown fields and bad values.
pub fn attachment(text: &str) -> Result<Attachment, Error> {
    let mut attachment = Attachment::default();
    // A name has no equals sign; a mode such as container:NAME neither.
    if !text.contains('=') {
        text.clone_into(&mut attachment.network);
        return Ok(attachment);
    }
    let bad = |reason: &str| invalid("--network", text, reason);
    let mut aliases = Vec::new();
    let mut options = Map::new();
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or_else(|| bad("expected fields of the form key=value"))?;
        let value = value.trim();
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => value.clone_into(&mut attachment.network),
            "alias" => aliases.push(value.to_owned()),
            "ip" => attachment.ipam("IPv4Address", value, "--network ip")?,
            "ip6" => attachment.ipam("IPv6Address", value, "--network ip6")?,
            "mac-address" => attachment.set("MacAddress", value.into(), "mac-address")?,
            "driver-opt" => {
                let (name, value) = environment::key_value("--network driver-opt", value)?;
                options.insert(name, value.into());
            }
            "gw-priority" => {
                let priority: i64 = value
                    .parse()
                    .map_err(|_| bad("gw-priority must be a whole number"))?;
                attachment.set("GwPriority", priority.into(), "gw-priority")?;
            }
            other => return Err(bad(&format!("unknown field {other:?}"))),
        }
    }
    if attachment.network.is_empty() {
        return Err(bad("the field name is missing"));
    }
    if !aliases.is_empty() {
        attachment
            .endpoint
            .insert("Aliases".to_owned(), aliases.into());
    }
    if !options.is_empty() {
        attachment
            .endpoint
            .insert("DriverOpts".to_owned(), options.into());
    }
    Ok(attachment)
}

/// An address with a prefix, as numbers.
fn subnet(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

fn contains(text: &str, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32_u32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let Some((network, prefix)) = subnet(text) else {
        return false;
    };
    let ((network, width), (address, other)) = (bits(network), bits(address));
    let shift = width.saturating_sub(u32::from(prefix));
    width == other
        && network.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
}

/// `IPAM.Config` of `network create`: each range, gateway and auxiliary address goes to the subnet
/// that it lies in.
///
/// # Errors
/// [`Error::Usage`] for what lies in none, as docker.
pub fn subnets(
    subnets: &[String],
    ranges: &[String],
    gateways: &[String],
    auxiliary: &[String],
) -> Result<Vec<Value>, Error> {
    let mut configs = Vec::new();
    for text in subnets {
        if subnet(text).is_none() {
            return Err(invalid("--subnet", text, "expected ADDRESS/PREFIX"));
        }
        configs.push(json!({"Subnet": text}));
    }
    for text in ranges {
        let address = subnet(text).map(|(address, _)| address);
        let config = home(&mut configs, "--ip-range", text, address)?;
        config["IPRange"] = text.as_str().into();
    }
    for text in gateways {
        let config = home(&mut configs, "--gateway", text, text.parse().ok())?;
        config["Gateway"] = text.as_str().into();
    }
    for text in auxiliary {
        let (name, address) = environment::key_value("--aux-address", text)?;
        let config = home(&mut configs, "--aux-address", text, address.parse().ok())?;
        config["AuxiliaryAddresses"][name.as_str()] = address.into();
    }
    Ok(configs)
}

/// The configuration of the subnet that an address lies in.
fn home<'a>(
    configs: &'a mut [Value],
    flag: &str,
    text: &str,
    address: Option<IpAddr>,
) -> Result<&'a mut Value, Error> {
    let address = address.ok_or_else(|| invalid(flag, text, "it is no address"))?;
    let is_home =
        |config: &&mut Value| contains(config["Subnet"].as_str().unwrap_or_default(), address);
    configs.iter_mut().find(is_home).ok_or_else(|| {
        let what = flag.trim_start_matches('-');
        Error::Usage(format!("no matching subnet for {what} {text}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_and_the_long_form() {
        assert_eq!(
            attachment("container:web").unwrap().network,
            "container:web"
        );
        let long = attachment(
            "name=back,alias=db,alias=sql,ip=10.0.0.5,driver-opt=a=b,gw-priority=-1,mac-address=02:00:00:00:00:01",
        )
        .unwrap();
        assert_eq!(long.network, "back");
        assert_eq!(
            Value::Object(long.endpoint.clone()),
            json!({
                "Aliases": ["db", "sql"], "IPAMConfig": {"IPv4Address": "10.0.0.5"},
                "DriverOpts": {"a": "b"}, "GwPriority": -1, "MacAddress": "02:00:00:00:00:01",
            })
        );
        let mut again = long;
        assert!(again.extend(Some("10.0.0.6"), None, &[], &[]).is_err());
        assert!(again.extend(None, None, &["x".to_owned()], &[]).is_err());
        again.extend(None, None, &[], &["a:b".to_owned()]).unwrap();
        assert_eq!(again.endpoint["Links"], json!(["a:b"]));
        for bad in [
            "alias=x",
            "name=a,what=b",
            "name=a,ip=x",
            "name=a,gw-priority=x",
            "name=a,b",
        ] {
            assert!(attachment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_find_their_subnet() {
        let words = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
        let configs = subnets(
            &words(&["10.1.0.0/16", "fd00::/64"]),
            &words(&["10.1.5.0/24"]),
            &words(&["fd00::1", "10.1.0.254"]),
            &words(&["router=10.1.0.9"]),
        )
        .unwrap();
        assert_eq!(
            json!(configs),
            json!([
                {"Subnet": "10.1.0.0/16", "IPRange": "10.1.5.0/24", "Gateway": "10.1.0.254",
                 "AuxiliaryAddresses": {"router": "10.1.0.9"}},
                {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
            ])
        );
        let none = words(&[]);
        assert!(subnets(&words(&["10.1.0.0"]), &none, &none, &none).is_err());
        assert!(subnets(&none, &none, &words(&["10.1.0.1"]), &none).is_err());
        assert!(subnets(&words(&["0.0.0.0/0"]), &none, &words(&["10.1.0.1"]), &none).is_ok());
    }
}
