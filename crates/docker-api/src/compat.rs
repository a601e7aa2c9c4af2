//! What answers look like in older versions of the API.
//!
//! Handlers describe things as the newest version has them, together with what only older ones
//! have; each function here takes away what the version asked for does not know. Sources: moby's
//! `api/docs/CHANGELOG.md` and its descriptions of each version.

use crate::request::ApiVersion;
use serde_json::{Map, Value, json};

const fn v(minor: u32) -> ApiVersion {
    ApiVersion(1, minor)
}

/// Takes fields away from an object.
fn without(value: &mut Value, keys: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        for key in keys {
            object.remove(*key);
        }
    }
}

/// Fields of `NetworkSettings` that told of the default bridge alone.
const OF_THE_DEFAULT_BRIDGE: [&str; 14] = [
    "Bridge",
    "HairpinMode",
    "LinkLocalIPv6Address",
    "LinkLocalIPv6PrefixLen",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "EndpointID",
    "Gateway",
    "GlobalIPv6Address",
    "GlobalIPv6PrefixLen",
    "IPAddress",
    "IPPrefixLen",
    "IPv6Gateway",
    "MacAddress",
];

/// `GET /containers/{id}/json`
pub fn container(version: ApiVersion, value: &mut Value) {
    if version >= v(52) {
        if let Some(settings) = value.get_mut("NetworkSettings") {
            without(settings, &OF_THE_DEFAULT_BRIDGE);
        }
        if let Some(config) = value.get_mut("Config") {
            without(config, &["MacAddress"]);
        }
    }
    let short_id: String = text(&value["Id"]).chars().take(12).collect();
    let host_name = text(&value["Config"]["Hostname"]).to_owned();
    // A container that has never run has not been on its networks yet.
    let names = [short_id.as_str(), host_name.as_str()];
    let was_there = value["State"]["Status"] != "created";
    if let Some(networks) = value.pointer_mut("/NetworkSettings/Networks") {
        endpoints(version, networks, if was_there { &names } else { &[] });
    }
}

/// Places in networks. Before 1.45 the short id and the host name stood among the aliases.
fn endpoints(version: ApiVersion, networks: &mut Value, names: &[&str]) {
    let Some(networks) = networks.as_object_mut() else {
        return;
    };
    for (network, endpoint) in networks {
        let is_user_defined = !matches!(network.as_str(), "bridge" | "host" | "none" | "default");
        if version < v(45) && is_user_defined {
            let given = endpoint["Aliases"].as_array().cloned();
            let mut aliases = given.unwrap_or_default();
            for name in names.iter().filter(|name| !name.is_empty()) {
                if !aliases.contains(&json!(name)) {
                    aliases.push(json!(name));
                }
            }
            endpoint["Aliases"] = if aliases.is_empty() {
                Value::Null
            } else {
                json!(aliases)
            };
        }
        if version < v(44) {
            without(endpoint, &["DNSNames"]);
        }
        if version < v(48) {
            without(endpoint, &["GwPriority"]);
        }
    }
}

/// `GET /containers/json`
pub fn container_summary(version: ApiVersion, value: &mut Value) {
    if version < v(46)
        && let Some(host) = value.get_mut("HostConfig")
    {
        without(host, &["Annotations"]);
    }
    if version < v(52) {
        without(value, &["Health"]);
    }
    if let Some(networks) = value.pointer_mut("/NetworkSettings/Networks") {
        // The list never told of short ids.
        endpoints(version, networks, &[]);
    }
}

/// `GET /images/json`
pub fn image_summary(version: ApiVersion, value: &mut Value) {
    let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    if version < v(43) && is_empty(&value["RepoTags"]) && is_empty(&value["RepoDigests"]) {
        value["RepoTags"] = json!(["<none>:<none>"]);
        value["RepoDigests"] = json!(["<none>@<none>"]);
    }
    if version < v(51) {
        value["Containers"] = json!(-1);
    }
    if version >= v(44) {
        without(value, &["VirtualSize"]);
    }
}

/// What the configuration of an image held before 1.50, whether it was set or not.
const IMAGE_CONFIG: [&str; 17] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "Domainname",
    "Entrypoint",
    "Env",
    "Hostname",
    "Image",
    "Labels",
    "OnBuild",
    "OpenStdin",
    "StdinOnce",
    "Tty",
    "User",
    "Volumes",
    "WorkingDir",
];
/// Those of them that are in it up to 1.51.
const IMAGE_CONFIG_STILL: [&str; 8] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "Labels",
    "OnBuild",
    "User",
    "Volumes",
    "WorkingDir",
];

/// `GET /images/{name}/json`
pub fn image(version: ApiVersion, value: &mut Value) {
    let is_unset = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(_) => false,
    };
    if version >= v(50)
        && let Some(config) = value["Config"].as_object_mut()
    {
        // Of the container that was committed.
        for key in ["StopTimeout", "NetworkDisabled", "MacAddress"] {
            config.remove(key);
        }
        let keep = |key: &str| version < v(52) && IMAGE_CONFIG_STILL.contains(&key);
        config.retain(|key, value| {
            !IMAGE_CONFIG.contains(&key.as_str()) || keep(key) || !is_unset(value)
        });
    }
    if version >= v(52) {
        for key in ["Parent", "Comment", "DockerVersion", "Author"] {
            if is_unset(&value[key]) {
                without(value, &[key]);
            }
        }
    }
    if version >= v(44) {
        without(value, &["VirtualSize"]);
        if value["Created"] == gamut_spec::time::NEVER {
            without(value, &["Created"]);
        }
    }
    if version < v(45) {
        image_container(value);
    }
}

/// What an image told before 1.45: the container of its build step. Builds leave none.
///
/// docker-compose 1 takes the newest version there is, and still ends without it.
pub fn image_container(value: &mut Value) {
    value["Container"] = json!("");
    value["ContainerConfig"] = no_config();
}

/// The configuration of no container.
fn no_config() -> Value {
    IMAGE_CONFIG
        .iter()
        .map(|key| {
            let unset = match *key {
                "Domainname" | "Hostname" | "Image" | "User" | "WorkingDir" => json!(""),
                "Cmd" | "Entrypoint" | "Env" | "Labels" | "OnBuild" | "Volumes" => Value::Null,
                _ => json!(false),
            };
            ((*key).to_owned(), unset)
        })
        .collect::<Map<_, _>>()
        .into()
}

/// `GET /info`
pub fn info(version: ApiVersion, value: &mut Value) {
    if version > v(40) {
        without(value, &["SystemStatus"]);
    }
    if version < v(48)
        && let Some(registries) = value.get_mut("RegistryConfig")
    {
        registries["AllowNondistributableArtifactsCIDRs"] = Value::Null;
        registries["AllowNondistributableArtifactsHostnames"] = Value::Null;
    }
    if version < v(49) {
        without(value, &["FirewallBackend"]);
        for commit in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
            value[commit]["Expected"] = value[commit]["ID"].clone();
        }
    }
    if version < v(50) {
        value["BridgeNfIptables"] = json!(false);
        value["BridgeNfIp6tables"] = json!(false);
    }
    if version < v(42) {
        // Limits on memory of the kernel: the kernel has none any more.
        value["KernelMemory"] = json!(false);
        value["KernelMemoryTCP"] = json!(false);
    }
}

/// An event of `GET /events`. False: this version does not tell of it.
pub fn event(version: ApiVersion, value: &mut Value) -> bool {
    if version >= v(52) {
        without(value, &["status", "id", "from"]);
    }
    version >= v(46) || !(value["Type"] == "image" && value["Action"] == "create")
}

/// One of the list of `GET /networks`.
pub fn network_summary(version: ApiVersion, value: &mut Value) {
    network(version, value);
    if version >= v(52) {
        without(value, &["Containers"]);
    }
}

/// `GET /networks/{id}`
pub fn network(version: ApiVersion, value: &mut Value) {
    if version < v(48) {
        without(value, &["EnableIPv4"]);
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers() {
        let newest = json!({
            "Id": "0123456789abcdef", "Config": {"Hostname": "inside", "MacAddress": "x"},
            "NetworkSettings": {"IPAddress": "10.0.0.2", "Ports": {}, "Networks": {
                "bridge": {"Aliases": null, "GwPriority": 0, "DNSNames": null},
                "mine": {"Aliases": ["db"], "GwPriority": 0, "DNSNames": ["box"]},
            }},
        });
        let old = |minor| {
            let mut value = newest.clone();
            container(v(minor), &mut value);
            value
        };
        let mine = |minor| old(minor)["NetworkSettings"]["Networks"]["mine"].clone();
        assert_eq!(
            mine(43),
            json!({"Aliases": ["db", "0123456789ab", "inside"]})
        );
        let mut made = newest.clone();
        made["State"] = json!({"Status": "created"});
        container(v(43), &mut made);
        assert_eq!(
            made["NetworkSettings"]["Networks"]["mine"],
            json!({"Aliases": ["db"]})
        );
        assert_eq!(mine(47), json!({"Aliases": ["db"], "DNSNames": ["box"]}));
        assert_eq!(
            old(43)["NetworkSettings"]["Networks"]["bridge"],
            json!({"Aliases": null})
        );
        assert_eq!(old(51)["NetworkSettings"]["IPAddress"], "10.0.0.2");
        assert!(old(52)["NetworkSettings"].get("IPAddress").is_none());
        assert!(old(52)["Config"].get("MacAddress").is_none());
    }

    #[test]
    fn images() {
        let newest = json!({
            "Parent": "", "Author": "me", "Created": gamut_spec::time::NEVER, "VirtualSize": 5,
            "Config": {"Cmd": ["sh"], "Entrypoint": null, "Tty": false, "User": "", "Env": ["A=b"]},
        });
        let old = |minor| {
            let mut value = newest.clone();
            image(v(minor), &mut value);
            value
        };
        let keys =
            |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
        assert_eq!(old(43)["VirtualSize"], 5);
        assert_eq!(old(43)["ContainerConfig"]["Tty"], false);
        assert_eq!(
            keys(&old(49)["Config"]),
            ["Cmd", "Entrypoint", "Env", "Tty", "User"]
        );
        assert_eq!(
            keys(&old(51)["Config"]),
            ["Cmd", "Entrypoint", "Env", "User"]
        );
        assert_eq!(keys(&old(52)), ["Author", "Config"]);
        assert_eq!(keys(&old(52)["Config"]), ["Cmd", "Env"]);

        let mut summary = json!({"RepoTags": [], "RepoDigests": [], "Containers": 2});
        image_summary(v(51), &mut summary);
        assert_eq!(summary["Containers"], 2);
        image_summary(v(42), &mut summary);
        assert_eq!(summary["RepoTags"], json!(["<none>:<none>"]));
        assert_eq!(summary["Containers"], -1);
    }

    #[test]
    fn events_and_info() {
        let mut create = json!({"Type": "image", "Action": "create", "status": "create"});
        assert!(!event(v(45), &mut create));
        assert_eq!(create["status"], "create");
        assert!(event(v(52), &mut create));
        assert!(create.get("status").is_none());
        let mut value = json!({"RuncCommit": {"ID": "x"}, "FirewallBackend": {}});
        info(v(50), &mut value);
        assert!(value.get("BridgeNfIptables").is_none() && value.get("FirewallBackend").is_some());
        info(v(48), &mut value);
        assert_eq!(value["RuncCommit"]["Expected"], "x");
        assert!(value.get("FirewallBackend").is_none());
    }
}
