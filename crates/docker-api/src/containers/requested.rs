//! Requests to make a container, as older and newer versions of the API understand them.

use crate::error::ApiError;
use crate::request::ApiVersion;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

const fn v(minor: u32) -> ApiVersion {
    ApiVersion(1, minor)
}

/// Makes of a request what it means in its version of the API: what the version does not know is
/// passed over, as dockerd does, or refused where that would be worse. Returns warnings.
///
/// # Errors
/// For what the version refuses.
pub fn understand(version: ApiVersion, body: &mut Value) -> Result<Vec<String>, ApiError> {
    let mut warnings = Vec::new();
    if !body.is_object() {
        return Ok(warnings);
    }
    capitalised(body);
    for inner in ["HostConfig", "NetworkingConfig"] {
        if let Some(inner) = body.get_mut(inner) {
            capitalised(inner);
        }
    }
    let deprecated_mac = take(body, "MacAddress");
    if let Some(mac) = deprecated_mac.as_str().filter(|mac| !mac.is_empty()) {
        warnings.extend(mac_address(version, body, mac)?);
    } else if version < v(44) {
        for endpoint in endpoints(body) {
            take(endpoint, "MacAddress");
        }
    }
    if version < v(44) && body["Healthcheck"].is_object() {
        take(&mut body["Healthcheck"], "StartInterval");
    }
    networks(version, body)?;
    if let Some(host) = body.get_mut("HostConfig").filter(|host| host.is_object()) {
        if version < v(40) && unset(&host["IpcMode"]) {
            host["IpcMode"] = json!("shareable");
        }
        if version < v(42) {
            take(host, "ConsoleSize");
        }
        if version < v(43) {
            take(host, "Annotations");
        }
        let mounts = host.get_mut("Mounts").and_then(Value::as_array_mut);
        for mount in mounts.into_iter().flatten().filter(|one| one.is_object()) {
            self::mount(version, mount)?;
        }
        warnings.extend(empty_bindings(version, host));
    }
    Ok(warnings)
}

/// Clients take a 404 for an image that they must pull first. That another container or a network
/// is not there is told otherwise.
pub fn only_images_are_not_found(mut error: ApiError) -> ApiError {
    let is_about_others = ["No such container", "network "]
        .iter()
        .any(|start| error.message.starts_with(start));
    if error.status == StatusCode::NOT_FOUND && is_about_others {
        error.status = StatusCode::BAD_REQUEST;
    }
    error
}

/// Go's decoder does not tell upper from lower case, so fields may come in either.
fn capitalised(value: &mut Value) {
    let Some(object) = value.as_object_mut() else {
        return;
    };
    for (key, value) in std::mem::take(object) {
        let mut letters = key.chars();
        let known = match letters.next() {
            Some(first) if first.is_ascii_lowercase() => {
                format!("{}{}", first.to_ascii_uppercase(), letters.as_str())
            }
            _ => key,
        };
        object.insert(known, value);
    }
}

/// Removes a field and returns it.
fn take(value: &mut Value, key: &str) -> Value {
    value
        .as_object_mut()
        .and_then(|object| object.remove(key))
        .unwrap_or(Value::Null)
}

fn unset(value: &Value) -> bool {
    value.is_null() || value == ""
}

fn endpoints(body: &mut Value) -> impl Iterator<Item = &mut Value> {
    body.pointer_mut("/NetworkingConfig/EndpointsConfig")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
        .map(|(_, endpoint)| endpoint)
}

fn networks(version: ApiVersion, body: &mut Value) -> Result<(), ApiError> {
    let names: Vec<String> = body
        .pointer("/NetworkingConfig/EndpointsConfig")
        .and_then(Value::as_object)
        .map(|map| map.keys().cloned().collect())
        .unwrap_or_default();
    if version < v(44) && names.len() > 1 {
        return Err(ApiError::invalid(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    if version < v(48) {
        for endpoint in endpoints(body) {
            take(endpoint, "GwPriority");
        }
    }
    Ok(())
}

/// The address of the whole container, which since 1.44 belongs to its place in a network.
fn mac_address(version: ApiVersion, body: &mut Value, mac: &str) -> Result<Vec<String>, ApiError> {
    if version >= v(52) {
        return Err(ApiError::invalid(
            "container-wide MAC address no longer supported; use endpoint-specific MAC address \
             instead",
        ));
    }
    let mode = body["HostConfig"]["NetworkMode"].as_str().unwrap_or("");
    let mode = if mode.is_empty() { "default" } else { mode };
    let has_no_place = matches!(mode, "none" | "host") || mode.starts_with("container:");
    if version < v(44) {
        if has_no_place {
            return Err(ApiError::invalid(
                "conflicting options: mac-address and the network mode",
            ));
        }
        body["MacAddress"] = json!(mac);
        return Ok(Vec::new());
    }
    let warning =
        "The container-wide MacAddress field is now deprecated. It should be specified in \
                   EndpointsConfig instead."
            .to_owned();
    if has_no_place {
        return Ok(vec![warning]);
    }
    let mode = mode.to_owned();
    let places = body
        .pointer("/NetworkingConfig/EndpointsConfig")
        .and_then(Value::as_object);
    let is_named = |places: &Map<String, Value>| match mode.as_str() {
        "default" | "bridge" => places.contains_key("default") || places.contains_key("bridge"),
        mode => places.contains_key(mode),
    };
    if places.is_some_and(|places| !places.is_empty() && !is_named(places)) {
        return Err(ApiError::invalid(
            "unable to migrate container-wide MAC address to a specific network: \
             HostConfig.NetworkMode must match the identity of a network in \
             NetworkSettings.Networks",
        ));
    }
    let own = places.and_then(|places| places.get(&mode)?.get("MacAddress")?.as_str());
    if own.is_some_and(|own| !own.is_empty() && own != mac) {
        return Err(ApiError::invalid(
            "the container-wide MAC address must match the endpoint-specific MAC address for the \
             main network, or be left empty",
        ));
    }
    body["MacAddress"] = json!(mac);
    Ok(vec![warning])
}

fn mount(version: ApiVersion, mount: &mut Value) -> Result<(), ApiError> {
    let kind = mount["Type"].as_str().unwrap_or_default().to_owned();
    for (options, of) in [
        ("VolumeOptions", "volume"),
        ("BindOptions", "bind"),
        ("TmpfsOptions", "tmpfs"),
    ] {
        if kind == of || mount.get(options).is_none_or(Value::is_null) {
            continue;
        }
        if version >= v(42) {
            return Err(ApiError::invalid(format!(
                "{options} must not be specified on mount type \"{kind}\""
            )));
        }
        take(mount, options);
    }
    if let Some(bind) = mount.get_mut("BindOptions") {
        if version < v(40) {
            take(bind, "NonRecursive");
        }
        if version < v(42) {
            take(bind, "CreateMountpoint");
        }
        if version < v(44) && bind["ReadOnlyForceRecursive"] == true {
            return Err(ApiError::invalid(
                "BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer",
            ));
        }
    }
    if version < v(45) && !unset(&mount["VolumeOptions"]["Subpath"]) {
        return Err(ApiError::invalid(
            "VolumeOptions.Subpath needs API v1.45 or newer",
        ));
    }
    if version < v(48) && kind == "image" {
        return Err(ApiError::invalid(
            "Mount type \"Image\" needs API v1.48 or newer",
        ));
    }
    Ok(())
}

/// A port with an empty list of bindings is published at any port of the host.
fn empty_bindings(version: ApiVersion, host: &mut Value) -> Option<String> {
    let mut ports = Vec::new();
    let bindings = host.get_mut("PortBindings").and_then(Value::as_object_mut);
    for (port, bindings) in bindings.into_iter().flatten() {
        if bindings.is_null() || bindings.as_array().is_some_and(Vec::is_empty) {
            *bindings = json!([{}]);
            ports.push(port.clone());
        }
    }
    (version >= v(52) && !ports.is_empty()).then(|| {
        format!(
            "Following container port(s) have an empty list of port-bindings: {}. Such bindings \
             will be discarded in a future version.",
            ports.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn understood(minor: u32, mut body: Value) -> Result<(Value, Vec<String>), String> {
        understand(v(minor), &mut body)
            .map(|warnings| (body, warnings))
            .map_err(|error| error.message)
    }

    #[test]
    fn what_a_version_does_not_know_is_passed_over() {
        let body = json!({
            "Healthcheck": {"Test": ["CMD", "x"], "StartInterval": 5},
            "NetworkingConfig": {"EndpointsConfig": {"a": {"GwPriority": 3, "MacAddress": "m"}}},
            "HostConfig": {
                "ConsoleSize": [1, 2], "Annotations": {"a": "b"}, "PortBindings": {"80/tcp": []},
                "Mounts": [{"Type": "tmpfs", "VolumeOptions": {}, "TmpfsOptions": {"Mode": 5}}],
            },
        });
        let (old, warnings) = understood(39, body.clone()).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(
            old,
            json!({
                "Healthcheck": {"Test": ["CMD", "x"]},
                "NetworkingConfig": {"EndpointsConfig": {"a": {}}},
                "HostConfig": {
                    "IpcMode": "shareable", "PortBindings": {"80/tcp": [{}]},
                    "Mounts": [{"Type": "tmpfs", "TmpfsOptions": {"Mode": 5}}],
                },
            })
        );
        let error = understood(52, body.clone()).unwrap_err();
        assert!(error.contains("VolumeOptions must not be"), "{error}");
        let mut newest = body;
        newest["HostConfig"]["Mounts"] = json!([]);
        let (newest, warnings) = understood(52, newest).unwrap();
        assert!(warnings[0].contains("80/tcp"), "{warnings:?}");
        assert_eq!(newest["HostConfig"]["ConsoleSize"], json!([1, 2]));
    }

    #[test]
    fn fields_may_be_in_lower_case() {
        let body =
            json!({"image": "x", "labels": {"a": "b"}, "hostConfig": {"annotations": {"c": "d"}}});
        assert_eq!(
            understood(50, body).unwrap().0,
            json!({"Image": "x", "Labels": {"a": "b"}, "HostConfig": {"Annotations": {"c": "d"}}})
        );
    }

    #[test]
    fn what_a_version_refuses() {
        let two = json!({"NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}});
        assert!(understood(43, two.clone()).is_err());
        assert!(understood(44, two).is_ok());
        let mac = json!({"MacAddress": "02:00:00:00:00:01"});
        assert!(understood(52, mac.clone()).is_err());
        assert_eq!(understood(44, mac.clone()).unwrap().1.len(), 1);
        assert_eq!(understood(43, mac).unwrap().1.len(), 0);
        let other = json!({"MacAddress": "a", "HostConfig": {"NetworkMode": "n"},
            "NetworkingConfig": {"EndpointsConfig": {"n": {"MacAddress": "b"}}}});
        assert!(understood(50, other).is_err());
        let subpath = json!({"HostConfig": {"Mounts": [
            {"Type": "volume", "VolumeOptions": {"Subpath": "x"}}]}});
        assert!(understood(44, subpath.clone()).is_err());
        assert!(understood(45, subpath).is_ok());
    }

    proptest! {
        #[test]
        fn any_shape_is_taken(minor in 24_u32..60, key in "[A-Z][A-Za-z]{0,12}", inner in "\\PC{0,12}") {
            for value in [json!(5), json!("x"), json!([1]), json!({"a": null})] {
                for body in [
                    value.clone(),
                    json!({&key: value, "HostConfig": &inner}),
                    json!({"HostConfig": {"Mounts": value, "PortBindings": value}}),
                    json!({"HostConfig": {"Mounts": [value]}, "Healthcheck": value}),
                    json!({"HostConfig": {"Mounts": [{"BindOptions": value, "VolumeOptions": value}]}}),
                    json!({"NetworkingConfig": {"EndpointsConfig": {"a": value}}, "MacAddress": "m"}),
                ] {
                    let _ = understood(minor, body);
                }
            }
        }
    }
}
