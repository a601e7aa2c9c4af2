//! The `filters` parameter: `{"label": ["a=b"], "status": {"running": true}}`.

use crate::error::ApiError;
use crate::request::Request;
use gamut_spec::{time, units};
use serde_json::Value;
use std::collections::BTreeMap;

/// Filters by name; each has one or more values, of which one has to match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Parses the parameter, in the list form or the older map form.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let bad = || {
            ApiError::invalid(format!(
                "invalid filter {text:?}: expected a JSON object of lists"
            ))
        };
        let Ok(Value::Object(object)) = serde_json::from_str::<Value>(text) else {
            return Err(bad());
        };
        let mut filters = BTreeMap::new();
        for (name, values) in object {
            let list = match values {
                Value::Array(values) => values
                    .into_iter()
                    .map(|value| value.as_str().map(str::to_owned).ok_or_else(bad))
                    .collect::<Result<Vec<_>, _>>()?,
                Value::Object(values) => values
                    .into_iter()
                    .filter(|(_, wanted)| wanted.as_bool() != Some(false))
                    .map(|(value, _)| value)
                    .collect(),
                Value::String(value) => vec![value],
                _ => return Err(bad()),
            };
            if !list.is_empty() {
                filters.insert(name, list);
            }
        }
        Ok(Self(filters))
    }

    /// The filters of a request.
    ///
    /// # Errors
    /// As [`Filters::parse`].
    pub fn from_request(request: &Request) -> Result<Self, ApiError> {
        Self::parse(request.text("filters").unwrap_or_default())
    }

    /// Refuses filters that are not among `known`.
    ///
    /// # Errors
    /// Naming the unknown one.
    pub fn check(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(ApiError::invalid(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }

    /// The values of a filter.
    #[must_use]
    pub fn values(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Whether there is such a filter.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// True without the filter, or if one of its values is accepted.
    pub fn any(&self, name: &str, accept: impl FnMut(&String) -> bool) -> bool {
        !self.has(name) || self.values(name).iter().any(accept)
    }

    /// A boolean filter.
    ///
    /// # Errors
    /// If its value is no boolean.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let values = self.values(name);
        if values.len() > 1 {
            return Err(ApiError::invalid(format!(
                "invalid filter '{name}=[{}]': got more than one value",
                values.join(" ")
            )));
        }
        match values.first().map(String::as_str) {
            None => Ok(None),
            Some("1" | "true" | "True" | "TRUE" | "t" | "T") => Ok(Some(true)),
            Some("0" | "false" | "False" | "FALSE" | "f" | "F") => Ok(Some(false)),
            Some(value) => Err(ApiError::invalid(format!(
                "invalid filter '{name}=[{value}]'"
            ))),
        }
    }

    /// Labels: all of `label` (`name` or `name=value`) and none of `label!`.
    #[must_use]
    pub fn match_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        self.values("label").iter().all(has) && !self.values("label!").iter().any(has)
    }

    /// The time of `until`: seconds, RFC 3339, or a duration before now.
    ///
    /// # Errors
    /// If it is none of these.
    pub fn until_ns(&self) -> Result<Option<u64>, ApiError> {
        match self.values("until").first() {
            None => Ok(None),
            Some(text) => match units::parse_duration_ns(text).filter(|_| text != "0") {
                Some(ago) => Ok(Some(time::now_ns().saturating_sub(ago))),
                None => crate::containers::logs::timestamp(Some(text)),
            },
        }
    }
}

/// Entry for fuzzing: any bytes are parsed or refused without panic.
pub fn fuzz_filters(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(filters) = Filters::parse(text)
    {
        let _ = filters.match_labels(&BTreeMap::new());
        let _ = filters.until_ns();
        let _ = filters.flag("dangling");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms() {
        let list = Filters::parse(r#"{"label":["a=b","c"],"status":["running"]}"#).unwrap();
        let map =
            Filters::parse(r#"{"label":{"a=b":true,"c":true},"status":{"running":true}}"#).unwrap();
        assert_eq!(list, map);
        let labels = BTreeMap::from([
            ("a".to_owned(), "b".to_owned()),
            ("c".to_owned(), String::new()),
        ]);
        assert!(list.match_labels(&labels));
        assert!(!list.match_labels(&BTreeMap::new()));
        assert!(list.check(&["label"]).is_err());
        assert!(Filters::parse("[]").is_err());
        assert!(Filters::parse(r#"{"a":5}"#).is_err());
        let negative = Filters::parse(r#"{"label!":["a=b"]}"#).unwrap();
        assert!(!negative.match_labels(&labels));
    }

    proptest! {
        #[test]
        fn any_text(text in "\\PC*") {
            fuzz_filters(text.as_bytes());
        }
    }
}
