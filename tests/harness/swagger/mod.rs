//! The public description of the Docker Engine API, against which answers are held.
//!
//! Its files (`v1.25.yaml`, ...) are moby's `api/docs`; nothing of them is kept here. Who wants the
//! checks names their directory by `GAMUT_TEST_SWAGGER`.

mod exchange;
mod schema;

pub use exchange::{Exchange, exchanges};

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use yaml_rust2::{Yaml, YamlLoader};

/// A version of the API, as (1, 41).
pub type Version = (u32, u32);

/// The description of one version.
#[derive(Debug)]
pub struct Swagger {
    version: Version,
    document: Value,
}

/// One operation of the description.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// `GET`, ...
    pub method: String,
    /// `/containers/{id}/json`
    pub path: String,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// It contradicts the description.
    Wrong(String),
    /// It says more than the description.
    Undescribed(String),
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wrong(text) => write!(f, "wrong: {text}"),
            Self::Undescribed(text) => write!(f, "undescribed: {text}"),
        }
    }
}

/// The directory that `GAMUT_TEST_SWAGGER` names.
#[must_use]
pub fn directory() -> Option<PathBuf> {
    std::env::var_os("GAMUT_TEST_SWAGGER").map(PathBuf::from)
}

/// `1.41` or `v1.41`.
#[must_use]
pub fn parse_version(text: &str) -> Option<Version> {
    let (major, minor) = text.strip_prefix('v').unwrap_or(text).split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The versions that a directory describes, oldest first.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn versions(directory: &Path) -> Vec<Version> {
    let mut list: Vec<Version> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            parse_version(name.strip_suffix(".yaml")?)
        })
        .collect();
    list.sort_unstable();
    list
}

impl Swagger {
    /// Loads the description of a version, or of the next one that is described: for 1.24 there is
    /// no file.
    ///
    /// # Panics
    /// If there is none or it is no YAML.
    #[must_use]
    pub fn load(directory: &Path, wanted: Version) -> Self {
        let version = versions(directory)
            .into_iter()
            .find(|version| *version >= wanted)
            .unwrap_or_else(|| panic!("no description of {wanted:?} in {}", directory.display()));
        let path = directory.join(format!("v{}.{}.yaml", version.0, version.1));
        let text = std::fs::read_to_string(&path).expect("it was listed");
        let documents = YamlLoader::load_from_str(&indented(&text))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self {
            version,
            document: json(&documents[0]),
        }
    }

    /// The version that is described.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    fn paths(&self) -> &Map<String, Value> {
        self.document["paths"].as_object().expect("it has paths")
    }

    /// All operations.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        let mut list: Vec<Operation> = self
            .paths()
            .iter()
            .flat_map(|(path, methods)| {
                let methods = methods.as_object().into_iter().flatten();
                methods.map(|(method, _)| Operation {
                    method: method.to_uppercase(),
                    path: path.clone(),
                })
            })
            .filter(|operation| operation.method != "PARAMETERS")
            .collect();
        list.sort();
        list
    }

    /// The operation that a request asks for; `path` without version and query.
    #[must_use]
    pub fn find(&self, method: &str, path: &str) -> Option<Operation> {
        let wanted: Vec<&str> = path.split('/').collect();
        let mut found: Vec<Operation> = self
            .operations()
            .into_iter()
            .filter(|operation| operation.method == method && matches(&operation.path, &wanted))
            .collect();
        // `/containers/create` and not `/containers/{id}`.
        found.sort_by_key(|operation| operation.path.matches('{').count());
        found.into_iter().next()
    }

    /// What is wrong with an answer to an operation. `content_type` is that of the body.
    #[must_use]
    pub fn check(
        &self,
        operation: &Operation,
        status: u16,
        content_type: &str,
        body: &[u8],
    ) -> Vec<Problem> {
        let described = &self.paths()[&operation.path][operation.method.to_lowercase()];
        let responses = &described["responses"];
        let response = &responses[status.to_string()];
        if response.is_null() {
            return vec![Problem::Wrong(format!("status {status} is not described"))];
        }
        let schema = &response["schema"];
        let is_json = content_type.starts_with("application/json");
        if schema.is_null() || !is_json || operation.method == "HEAD" {
            return Vec::new();
        }
        let mut problems = Vec::new();
        // Streams of events and statistics are several documents.
        let documents = serde_json::Deserializer::from_slice(body).into_iter::<Value>();
        let mut count = 0_usize;
        for document in documents {
            count += 1;
            match document {
                Ok(document) => schema::check(&self.document, schema, &document, &mut problems),
                Err(error) => problems.push(Problem::Wrong(format!("no JSON: {error}"))),
            }
        }
        // Streams that nothing happened on, or that the client has left.
        let streams = ["/events", "/stats", "/wait"];
        let may_be_empty = streams.iter().any(|end| operation.path.ends_with(end));
        if count == 0 && !may_be_empty {
            problems.push(Problem::Wrong(
                "an empty body where JSON is described".into(),
            ));
        }
        problems.sort();
        problems.dedup();
        problems
    }
}

/// Whether a template stands for these segments. A name of an image may hold slashes.
fn matches(template: &str, path: &[&str]) -> bool {
    let template: Vec<&str> = template.split('/').collect();
    let is_image = matches!(
        template.get(1),
        Some(&("images" | "distribution" | "plugins"))
    );
    match (template.as_slice(), path) {
        (["", kind, "{name}", last @ ..], ["", first, .., _])
            if is_image && kind == first && path.len() > template.len() =>
        {
            path.ends_with(last)
        }
        _ => {
            template.len() == path.len()
                && template
                    .iter()
                    .zip(path)
                    .all(|(part, have)| part == have || part.starts_with('{') && !have.is_empty())
        }
    }
}

/// Some examples end with a bracket, and some texts in quotes go on, too far to the left for YAML's
/// letter.
fn indented(text: &str) -> String {
    let mut is_quoted = false;
    let mut result = String::with_capacity(text.len());
    for line in text.lines() {
        let is_odd = line.replace("\\\"", "").matches('"').count() % 2 == 1;
        let key = line.trim().split_once(": \"").map(|(key, _)| key);
        let begins = key.is_some_and(|key| key.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let goes_on = is_quoted;
        is_quoted = if goes_on { !is_odd } else { is_odd && begins };
        if matches!(line.trim(), "}" | "]") {
            result.push_str("  ");
        }
        result.push_str(if goes_on { line.trim() } else { line });
        result.push(if is_quoted { ' ' } else { '\n' });
    }
    result
}

/// YAML's values as JSON's. Keys that are numbers (statuses) become text.
fn json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Real(text) => text.parse::<f64>().map_or(Value::Null, Value::from),
        Yaml::Integer(number) => Value::from(*number),
        Yaml::String(text) => Value::from(text.as_str()),
        Yaml::Boolean(flag) => Value::from(*flag),
        Yaml::Array(list) => Value::Array(list.iter().map(json).collect()),
        Yaml::Hash(map) => Value::Object(
            map.iter()
                .map(|(key, value)| (key_text(key), json(value)))
                .collect(),
        ),
        Yaml::Alias(_) | Yaml::Null | Yaml::BadValue => Value::Null,
    }
}

fn key_text(key: &Yaml) -> String {
    match key {
        Yaml::String(text) | Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Boolean(flag) => flag.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &str = r##"
paths:
  /things/{id}/json:
    get:
      responses:
        200:
          schema: {$ref: "#/definitions/Thing"}
        404:
          schema: {type: object, required: [message], properties: {message: {type: string}}}
  /things/create:
    get: {responses: {200: {}}}
  /things/{id}:
    get: {responses: {200: {}}}
  /images/{name}/json:
    get: {responses: {200: {}}}
definitions:
  Thing:
    type: object
    required: [Id]
    properties:
      Id: {type: string}
      Size: {type: integer}
      Kind: {type: string, enum: [a, b]}
      Labels: {type: object, additionalProperties: {type: string}}
      Tags: {type: array, items: {type: string}}
      Parent: {x-nullable: true, type: string}
"##;

    fn tiny() -> Swagger {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("v1.30.yaml"), TINY).unwrap();
        Swagger::load(directory.path(), (1, 24))
    }

    fn problems(status: u16, body: &str) -> Vec<String> {
        let swagger = tiny();
        let operation = swagger.find("GET", "/things/x/json").unwrap();
        let problems = swagger.check(&operation, status, "application/json", body.as_bytes());
        problems.iter().map(ToString::to_string).collect()
    }

    /// With `GAMUT_TEST_SWAGGER`, every file there.
    #[test]
    fn all_descriptions_are_understood() {
        let Some(directory) = directory() else {
            return;
        };
        for version in versions(&directory) {
            let swagger = Swagger::load(&directory, version);
            assert!(swagger.operations().len() > 60, "{version:?}");
            assert!(swagger.find("GET", "/containers/x/json").is_some());
        }
    }

    #[test]
    fn operations_are_found() {
        let swagger = tiny();
        assert_eq!(swagger.version(), (1, 30));
        let path = |path: &str| swagger.find("GET", path).map(|found| found.path);
        assert_eq!(path("/things/create").as_deref(), Some("/things/create"));
        assert_eq!(path("/things/5").as_deref(), Some("/things/{id}"));
        let image = path("/images/127.0.0.1:5000/a/b/json");
        assert_eq!(image.as_deref(), Some("/images/{name}/json"));
        assert_eq!(path("/things/5/other"), None);
        assert_eq!(swagger.find("POST", "/things/5"), None);
    }

    #[test]
    fn answers_are_held_against_the_description() {
        let fine = r#"{"Id": "x", "Size": 5, "Kind": "a", "Labels": {"k": "v"}, "Tags": null,
            "Parent": null}"#;
        assert_eq!(problems(200, fine), Vec::<String>::new());
        assert_eq!(problems(404, r#"{"message": "no"}"#), Vec::<String>::new());
        for (status, body, expected) in [
            (200, "{}", "wrong: .Id is missing"),
            (200, r#"{"Id": null}"#, "wrong: .Id is null"),
            (200, r#"{"Id": 5}"#, "wrong: .Id is no string: 5"),
            (
                200,
                r#"{"Id": "", "Size": 1.5}"#,
                "wrong: .Size is no integer: 1.5",
            ),
            (
                200,
                r#"{"Id": "", "Kind": "c"}"#,
                "wrong: .Kind is none of its values: \"c\"",
            ),
            (
                200,
                r#"{"Id": "", "Labels": {"k": 1}}"#,
                "wrong: .Labels.* is no string: 1",
            ),
            (
                200,
                r#"{"Id": "", "Tags": [true]}"#,
                "wrong: .Tags[] is no string: true",
            ),
            (200, r#"{"Id": "", "New": 1}"#, "undescribed: .New"),
            (200, "", "wrong: an empty body where JSON is described"),
            (500, "{}", "wrong: status 500 is not described"),
        ] {
            assert_eq!(problems(status, body), [expected], "{body}");
        }
    }
}
