//! `--filter NAME=VALUE`.

use std::collections::BTreeMap;

use super::invalid;
use crate::error::Error;

/// Filters as the API takes them: `{"name":{"value":true}}`. `None` if there are none.
///
/// # Errors
/// [`Error::Usage`] for anything without `=`.
pub fn parse(filters: &[String]) -> Result<Option<String>, Error> {
    let mut parsed: BTreeMap<String, BTreeMap<String, bool>> = BTreeMap::new();
    for text in filters {
        let Some((name, value)) = text.split_once('=') else {
            return Err(invalid("--filter", text, "use NAME=VALUE"));
        };
        let name = name.trim().to_lowercase();
        if name.is_empty() {
            return Err(invalid("--filter", text, "the name is empty"));
        }
        let values = parsed.entry(name).or_default();
        values.insert(value.trim().to_owned(), true);
    }
    if parsed.is_empty() {
        return Ok(None);
    }
    serde_json::to_string(&parsed)
        .map(Some)
        .map_err(|error| Error::Usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grouped_by_name() {
        let filters = ["status=exited", "label=a=b", "Status=running"].map(String::from);
        assert_eq!(
            parse(&filters).unwrap().unwrap(),
            r#"{"label":{"a=b":true},"status":{"exited":true,"running":true}}"#
        );
        assert_eq!(parse(&[]).unwrap(), None);
        assert!(parse(&["x".into()]).is_err());
        assert!(parse(&["=x".into()]).is_err());
    }
}
