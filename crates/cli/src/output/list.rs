//! Lists: `--format`, tables with headers, JSON lines.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::table::Table;
use super::template::{Scope, Template};
use crate::error::Error;

/// One row of a list: its fields as a template sees them.
#[derive(Debug, Default, Clone)]
pub struct Row {
    fields: Map<String, Value>,
    lookups: BTreeMap<&'static str, Map<String, Value>>,
}

impl Row {
    /// An empty row.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// With a field that takes a key: `{{.Label "key"}}`.
    #[must_use]
    pub fn with_lookup(mut self, name: &'static str, values: Map<String, Value>) -> Self {
        self.lookups.insert(name, values);
        self
    }

    /// The text of a field; empty if there is none.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.fields
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// How to show a kind of object.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Template of the default table, without the word `table`.
    pub table: &'static str,
    /// Fields and their headers.
    pub headers: &'static [(&'static str, &'static str)],
}

/// Renders rows by `--format`: nothing or `table` for the layout's table, `table TEMPLATE`,
/// `json` for one object a line, or a template for each row. Ends with a line end unless empty.
///
/// # Errors
/// [`Error::Template`].
pub fn render(format: Option<&str>, layout: &Layout, rows: &[Row]) -> Result<String, Error> {
    let format = format.unwrap_or("table").trim_start();
    if format == "json" {
        return Ok(rows.iter().fold(String::new(), |mut text, row| {
            text.push_str(&Value::from(row.fields.clone()).to_string());
            text.push('\n');
            text
        }));
    }
    let (is_table, source) = match format.strip_prefix("table") {
        Some("") => (true, layout.table.to_owned()),
        Some(rest) if rest.starts_with(char::is_whitespace) => (true, unescape(rest.trim())),
        _ => (false, unescape(format)),
    };
    let template = Template::parse(&source)?;
    let mut lines = Vec::with_capacity(rows.len() + 1);
    if is_table {
        lines.push(template.render(&Scope {
            dot: &headers(layout),
            lookups: None,
            is_header: true,
        })?);
    }
    for row in rows {
        let dot = Value::from(row.fields.clone());
        let scope = Scope {
            dot: &dot,
            lookups: Some(&row.lookups),
            is_header: false,
        };
        lines.push(template.render(&scope)?);
    }
    if is_table {
        let mut table = Table::default();
        for line in &lines {
            table.push_line(line);
        }
        return Ok(table.to_string());
    }
    Ok(lines.iter().fold(String::new(), |mut text, line| {
        text.push_str(line);
        text.push('\n');
        text
    }))
}

fn headers(layout: &Layout) -> Value {
    let fields: Map<String, Value> = layout
        .headers
        .iter()
        .map(|(name, header)| ((*name).to_owned(), Value::from(*header)))
        .collect();
    fields.into()
}

/// `\t` and `\n` as people write them within single quotes of a shell.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout {
        table: "{{.ID}}\t{{.Name}}",
        headers: &[("ID", "THING ID"), ("Name", "NAME")],
    };

    fn rows() -> Vec<Row> {
        let labels = [("k".to_owned(), Value::from("v"))].into_iter().collect();
        vec![
            Row::new()
                .with("ID", "1")
                .with("Name", "one")
                .with_lookup("Label", labels),
        ]
    }

    #[test]
    fn formats() {
        let show = |format| render(format, &LAYOUT, &rows()).unwrap();
        assert_eq!(show(None), "THING ID   NAME\n1          one\n");
        assert_eq!(show(Some("table")), show(None));
        assert_eq!(show(Some("json")), "{\"ID\":\"1\",\"Name\":\"one\"}\n");
        assert_eq!(show(Some("{{.ID}}\\t{{upper .Name}}")), "1\tONE\n");
        assert_eq!(
            show(Some("table {{upper .Name}}\\t{{.ID}}")),
            "NAME      THING ID\nONE       1\n"
        );
        assert_eq!(show(Some("{{.Label \"k\"}}{{.Label \"x\"}}")), "v\n");
        assert!(render(Some("{{.Bogus}}"), &LAYOUT, &rows()).is_err());
    }
}
