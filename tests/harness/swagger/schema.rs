//! A JSON value against a schema of Swagger 2.0, as far as moby's files use it.

use super::Problem;
use serde_json::{Map, Value};

/// Adds to `problems` what is wrong with `value`.
pub fn check(document: &Value, schema: &Value, value: &Value, problems: &mut Vec<Problem>) {
    let mut checker = Checker { document, problems };
    checker.value(schema, value, "");
}

struct Checker<'a> {
    document: &'a Value,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Checker<'a> {
    fn wrong(&mut self, path: &str, text: &str) {
        let path = if path.is_empty() { "the answer" } else { path };
        self.problems.push(Problem::Wrong(format!("{path} {text}")));
    }

    /// Follows references.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        let mut schema = schema;
        while let Some(reference) = schema["$ref"].as_str() {
            let pointer = reference.trim_start_matches('#');
            schema = self
                .document
                .pointer(pointer)
                .unwrap_or_else(|| panic!("the description has no {reference}"));
        }
        schema
    }

    fn value(&mut self, schema: &'a Value, value: &Value, path: &str) {
        let nullable = schema["x-nullable"] == true || self.resolve(schema)["x-nullable"] == true;
        let schema = self.resolve(schema);
        if value.is_null() {
            // Go's empty lists and maps; whether one may be absent is known to the caller.
            if path.is_empty() && !nullable && schema["type"] != "array" {
                self.wrong(path, "is null");
            }
            return;
        }
        let mut properties = Vec::new();
        self.gather(schema, &mut properties);
        match schema["type"].as_str() {
            Some("array") => match value.as_array() {
                Some(list) => {
                    for item in list {
                        self.value(&schema["items"], item, &format!("{path}[]"));
                    }
                }
                None => self.wrong(path, &format!("is no array: {}", short(value))),
            },
            Some("string") => self.text(schema, value, path),
            Some("integer") if !(value.is_i64() || value.is_u64()) => {
                self.wrong(path, &format!("is no integer: {}", short(value)));
            }
            Some("number") if !value.is_number() => {
                self.wrong(path, &format!("is no number: {}", short(value)));
            }
            Some("boolean") if !value.is_boolean() => {
                self.wrong(path, &format!("is no boolean: {}", short(value)));
            }
            Some("object") | None => self.object(schema, &properties, value, path),
            _ => {}
        }
    }

    fn text(&mut self, schema: &Value, value: &Value, path: &str) {
        if !value.is_string() {
            self.wrong(path, &format!("is no string: {}", short(value)));
            return;
        }
        // The empty text is Go's way to leave a value out.
        let known = schema["enum"].as_array();
        if known.is_some_and(|known| !known.contains(value)) && value != "" {
            self.wrong(path, &format!("is none of its values: {}", short(value)));
        }
    }

    /// The property lists of a schema and of all that it is made of.
    fn gather(&self, schema: &'a Value, lists: &mut Vec<&'a Value>) {
        let schema = self.resolve(schema);
        if schema.get("properties").is_some() || schema.get("additionalProperties").is_some() {
            lists.push(schema);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.gather(part, lists);
        }
    }

    fn object(&mut self, schema: &'a Value, lists: &[&'a Value], value: &Value, path: &str) {
        if lists.is_empty() {
            if schema["type"] == "object" && !value.is_object() {
                self.wrong(path, &format!("is no object: {}", short(value)));
            }
            return;
        }
        let Some(object) = value.as_object() else {
            self.wrong(path, &format!("is no object: {}", short(value)));
            return;
        };
        for list in lists {
            self.required(list, object, path);
        }
        for (name, value) in object {
            let property = lists.iter().find_map(|list| list["properties"].get(name));
            let others = lists
                .iter()
                .find_map(|list| list.get("additionalProperties"));
            match (property, others) {
                (Some(property), _) => self.value(property, value, &format!("{path}.{name}")),
                (None, Some(schema)) if schema.is_object() => {
                    self.value(schema, value, &format!("{path}.*"));
                }
                (None, Some(Value::Bool(true))) => {}
                (None, _) => self
                    .problems
                    .push(Problem::Undescribed(format!("{path}.{name}"))),
            }
        }
    }

    fn required(&mut self, list: &'a Value, object: &Map<String, Value>, path: &str) {
        for name in list["required"].as_array().into_iter().flatten() {
            let name = name.as_str().unwrap_or_default();
            let property = &list["properties"][name];
            let nullable =
                property["x-nullable"] == true || self.resolve(property)["x-nullable"] == true;
            match object.get(name) {
                None => self.wrong(&format!("{path}.{name}"), "is missing"),
                Some(Value::Null) if !nullable => self.wrong(&format!("{path}.{name}"), "is null"),
                Some(_) => {}
            }
        }
    }
}

/// A value for people.
fn short(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 60 {
        let end = (0..=60).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push_str("...");
    }
    text
}
