//! `--mount type=…,source=…,target=…`: fields of one CSV line.

use gamut_spec::units;
use serde_json::{Map, Value, json};

use super::invalid;
use crate::error::Error;

/// Parses one mount into the API's `Mount`.
///
/// # Errors
/// [`Error::Usage`] for unknown fields, missing targets, and options of another type of mount.
pub fn parse(text: &str) -> Result<Value, Error> {
    let bad = |reason: String| invalid("--mount", text, &reason);
    let mut mount = Draft::default();
    for field in split_csv(text).ok_or_else(|| bad("a quote is not closed".into()))? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_lowercase(), Some(value)),
            None => (field.to_lowercase(), None),
        };
        mount.set(&key, value).map_err(bad)?;
    }
    mount.finish().map_err(bad)
}

#[derive(Default)]
struct Draft {
    kind: String,
    source: String,
    target: String,
    is_read_only: bool,
    is_idmapped: bool,
    bind: Map<String, Value>,
    volume: Map<String, Value>,
    driver: Map<String, Value>,
    driver_options: Map<String, Value>,
    labels: Map<String, Value>,
    tmpfs: Map<String, Value>,
}

impl Draft {
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let switch = || match value {
            None => Ok(true),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(format!("invalid value for '{key}': {other}")),
        };
        match key {
            "readonly" | "ro" => {
                self.is_read_only = switch()?;
                return Ok(());
            }
            "idmap" => {
                self.is_idmapped = switch()?;
                return Ok(());
            }
            "volume-nocopy" => {
                self.volume.insert("NoCopy".into(), switch()?.into());
                return Ok(());
            }
            "bind-nonrecursive" => {
                self.bind.insert("NonRecursive".into(), switch()?.into());
                return Ok(());
            }
            _ => {}
        }
        let value = value.ok_or_else(|| format!("invalid field '{key}': use key=value"))?;
        let pair = || {
            let (name, value) = value
                .split_once('=')
                .ok_or_else(|| format!("invalid value for '{key}': use NAME=VALUE"))?;
            Ok::<_, String>((name.to_owned(), Value::from(value)))
        };
        match key {
            "type" => self.kind = value.to_lowercase(),
            "source" | "src" => self.source = value.to_owned(),
            "target" | "dst" | "destination" => self.target = value.to_owned(),
            "bind-propagation" => {
                self.bind.insert("Propagation".into(), value.into());
            }
            "bind-recursive" => {
                let field = match value {
                    "enabled" => None,
                    "disabled" => Some("NonRecursive"),
                    "writable" => Some("ReadOnlyNonRecursive"),
                    "readonly" => Some("ReadOnlyForceRecursive"),
                    _ => {
                        return Err(format!(
                            "invalid value for bind-recursive: {value}: use enabled, disabled, writable or readonly"
                        ));
                    }
                };
                if let Some(field) = field {
                    self.bind.insert(field.into(), true.into());
                }
            }
            "volume-driver" => {
                self.driver.insert("Name".into(), value.into());
            }
            "volume-subpath" => {
                self.volume.insert("Subpath".into(), value.into());
            }
            "volume-opt" => self.driver_options.extend([pair()?]),
            "volume-label" => self.labels.extend([pair()?]),
            "tmpfs-size" => {
                let bytes = units::parse_bytes(value)
                    .ok_or_else(|| format!("invalid value for tmpfs-size: {value}"))?;
                self.tmpfs.insert("SizeBytes".into(), bytes.into());
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8)
                    .map_err(|_| format!("invalid value for tmpfs-mode: {value}"))?;
                self.tmpfs.insert("Mode".into(), mode.into());
            }
            "consistency" => {}
            _ => return Err(format!("unknown option '{key}'")),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Value, String> {
        if self.kind.is_empty() {
            self.kind = "volume".into();
        }
        if self.target.is_empty() {
            return Err("target is required".into());
        }
        if !self.driver_options.is_empty() {
            self.driver
                .insert("Options".into(), self.driver_options.into());
        }
        if !self.driver.is_empty() {
            self.volume
                .insert("DriverConfig".into(), self.driver.into());
        }
        if !self.labels.is_empty() {
            self.volume.insert("Labels".into(), self.labels.into());
        }
        if self.kind == "bind" && self.source.is_empty() {
            return Err("source is required for a bind mount".into());
        }
        if self.kind == "tmpfs" && !self.source.is_empty() {
            return Err("cannot use 'source' with a tmpfs".into());
        }
        if self.bind.contains_key("ReadOnlyForceRecursive") && !self.is_read_only {
            return Err("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction".into());
        }
        let mut mount = json!({"Type": self.kind, "Target": self.target});
        let options = [
            ("bind", "BindOptions", self.bind),
            ("volume", "VolumeOptions", self.volume),
            ("tmpfs", "TmpfsOptions", self.tmpfs),
        ];
        for (kind, field, values) in options {
            if values.is_empty() {
                continue;
            }
            if kind != self.kind {
                return Err(format!(
                    "cannot mix '{kind}-*' options with type '{}'",
                    self.kind
                ));
            }
            mount[field] = values.into();
        }
        if !self.source.is_empty() {
            mount["Source"] = self.source.into();
        }
        if self.is_read_only {
            mount["ReadOnly"] = true.into();
        }
        if self.is_idmapped {
            mount["IDMap"] = true.into();
        }
        Ok(mount)
    }
}

/// Fields of one CSV line; a field may be quoted with `"`, doubled inside. `None` if a quote is
/// not closed.
fn split_csv(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let field = fields.last_mut()?;
        match c {
            '"' if is_quoted && characters.peek() == Some(&'"') => {
                characters.next();
                field.push('"');
            }
            '"' if is_quoted => is_quoted = false,
            '"' if field.is_empty() => is_quoted = true,
            ',' if !is_quoted => fields.push(String::new()),
            _ => field.push(c),
        }
    }
    (!is_quoted).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(
            parse("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave").unwrap(),
            json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true,
                   "BindOptions": {"Propagation": "rslave"}})
        );
        assert_eq!(
            parse("source=v,target=/x,volume-nocopy,volume-label=a=b,volume-opt=o=1").unwrap(),
            json!({"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions":
                {"NoCopy": true, "Labels": {"a": "b"}, "DriverConfig": {"Options": {"o": "1"}}}})
        );
        assert_eq!(
            parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777").unwrap(),
            json!({"Type": "tmpfs", "Target": "/t",
                   "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}})
        );
        assert_eq!(
            parse("type=bind,src=/a,dst=/b,ro,bind-recursive=readonly").unwrap()["BindOptions"],
            json!({"ReadOnlyForceRecursive": true})
        );
        assert_eq!(
            parse("type=bind,\"src=/a,b\",dst=/c,ro=false").unwrap()["Source"],
            "/a,b"
        );
    }

    #[test]
    fn refusals() {
        for bad in [
            "",
            "type=bind,target=/x",
            "type=tmpfs,source=x,target=/x",
            "type=bind,source=/x,target=/y,bind-recursive=readonly",
            "type=bind,source=/x,target=/y,bind-recursive=maybe",
            "type=bind,source=/x",
            "type=bind,source=/x,target=/y,tmpfs-size=1",
            "bogus=1,target=/x",
            "target=/x,readonly=maybe",
            "\"target=/x",
            "target",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
