//! The part of Go's `text/template` that people use in `--format`: fields, variables, pipelines,
//! functions, `if`, `range`, `with`. No I/O.

mod evaluate;
mod functions;
mod lexer;
mod parser;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::Error;

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<parser::Node>,
}

/// What a template is applied to.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The value of `.`.
    pub dot: &'a Value,
    /// Fields that take a key, as `{{.Label "key"}}`.
    pub lookups: Option<&'a BTreeMap<&'static str, Map<String, Value>>>,
    /// A table's headers are rendered: functions that reshape values leave them alone.
    pub is_header: bool,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`Error::Template`] with what is wrong.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let pieces = lexer::split(text).map_err(Error::Template)?;
        let nodes = parser::parse(pieces).map_err(Error::Template)?;
        Ok(Self { nodes })
    }

    /// Renders it for a value.
    ///
    /// # Errors
    /// [`Error::Template`] if the template does not fit the value.
    pub fn render_value(&self, dot: &Value) -> Result<String, Error> {
        self.render(&Scope {
            dot,
            lookups: None,
            is_header: false,
        })
    }

    /// Renders it in a scope.
    ///
    /// # Errors
    /// [`Error::Template`] if the template does not fit the value.
    pub fn render(&self, scope: &Scope<'_>) -> Result<String, Error> {
        evaluate::render(&self.nodes, scope).map_err(Error::Template)
    }
}

/// Entry for fuzzing: no text makes parser or evaluation panic.
pub fn fuzz_template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(template) = Template::parse(text) {
        let dot = serde_json::json!({"A": {"b": [1, 2.5, "x", null]}, "L": {"k": "v"}, "S": "é"});
        let _ = template.render_value(&dot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn show(template: &str, dot: &Value) -> String {
        Template::parse(template)
            .unwrap()
            .render_value(dot)
            .unwrap()
    }

    fn fails(template: &str) -> String {
        let dot = json!({"A": 1});
        match Template::parse(template) {
            Ok(parsed) => parsed.render_value(&dot).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn fields_and_values() {
        let dot = json!({
            "Name": "/x", "N": 3, "F": 1.5, "T": true, "Nil": null,
            "List": ["a", "b"], "Map": {"k2": "v2", "k1": "v1"}, "State": {"Pid": 7}
        });
        assert_eq!(show("plain", &dot), "plain");
        assert_eq!(show("{{.Name}} {{ .State.Pid }}", &dot), "/x 7");
        assert_eq!(
            show("{{.List}} {{.Map}} {{.Nil}}", &dot),
            "[a b] map[k1:v1 k2:v2] <nil>"
        );
        assert_eq!(
            show("{{.F}} {{.T}} {{\"q\\\"\"}} {{`r`}} {{-5}}", &dot),
            "1.5 true q\" r -5"
        );
        assert_eq!(show("{{(index .List 1)}}{{(.State).Pid}}", &dot), "b7");
        assert_eq!(
            show("{{json .Map}}{{json .}}", &json!({"Map": {"a": "<&>"}})),
            "{\"a\":\"<&>\"}{\"Map\":{\"a\":\"<&>\"}}"
        );
        assert_eq!(show("a {{- 1 -}} b{{/* c */}}", &dot), "a1b");
    }

    #[test]
    fn functions() {
        let dot = json!({"S": "aB", "List": ["x", "y"], "Map": {"k.d": "v"}, "P": "/c"});
        for (template, expected) in [
            ("{{upper .S}}{{lower .S}}{{title \"ab cd\"}}", "ABabAb Cd"),
            ("{{join .List \",\"}}", "x,y"),
            ("{{.List | join \"-\"}}", ""),
            (
                "{{index .Map \"k.d\"}}{{index .Map \"none\"}}",
                "v<no value>",
            ),
            (
                "{{printf \"%s|%5d|%-4v|%q|%x|%%|%05d|%.2f\" .S 3 true \"z\" 255 7 1.239}}",
                "aB|    3|true|\"z\"|ff|%|00007|1.24",
            ),
            ("{{len .List}}{{len .S}}", "22"),
            ("{{split \"a,b\" \",\"}}", "[a b]"),
            ("{{slice .P 1}}{{slice .P 0 1}}", "c/"),
            ("{{truncate \"abcdef\" 3}}{{pad \"x\" 1 2}}|", "abc x  |"),
            ("{{println .S 1}}{{print 1 2 \"x\"}}", "aB 1\n1 2x"),
            (
                "{{eq 1 2 1}}{{ne .S \"a\"}}{{lt 1 2}}{{ge 2 2}}{{not .S}}",
                "truetruetruetruefalse",
            ),
            ("{{and 1 0}}{{or \"\" \"d\"}}", "0d"),
            ("{{.S | upper | printf \"%s-%s\" \"a\"}}", "a-AB"),
        ] {
            if expected.is_empty() {
                assert!(
                    Template::parse(template)
                        .unwrap()
                        .render_value(&dot)
                        .is_err()
                );
            } else {
                assert_eq!(show(template, &dot), expected, "{template}");
            }
        }
    }

    #[test]
    fn control() {
        let dot = json!({
            "List": [{"A": 1}, {"A": 2}], "Empty": [], "Map": {"b": 2, "a": 1}, "Z": 0, "S": "s"
        });
        for (template, expected) in [
            ("{{if .Z}}y{{else if .S}}s{{else}}n{{end}}", "s"),
            ("{{range .List}}{{.A}},{{end}}", "1,2,"),
            (
                "{{range $i, $e := .List}}{{$i}}={{$e.A}} {{end}}",
                "0=1 1=2 ",
            ),
            ("{{range $k, $v := .Map}}{{$k}}{{$v}}{{end}}", "a1b2"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{with .S}}{{.}}{{end}}{{with .Z}}x{{else}}z{{end}}", "sz"),
            ("{{$x := .S}}{{range .List}}{{$x}}{{$.S}}{{end}}", "ssss"),
            ("{{$x := 1}}{{range .List}}{{$x = .A}}{{end}}{{$x}}", "2"),
            (
                "{{range .List}}{{if eq .A 1}}{{continue}}{{end}}{{.A}}{{break}}{{end}}",
                "2",
            ),
        ] {
            assert_eq!(show(template, &dot), expected, "{template}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (template, part) in [
            ("{{.B}}", "no entry for key \"B\""),
            ("{{.A.B}}", "can't evaluate field B"),
            ("{{bogus .A}}", "function \"bogus\" not defined"),
            ("{{.A", "unclosed action"),
            ("{{if .A}}x", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{}}", "missing value for command"),
            ("{{\"x}}", "unterminated quoted string"),
            ("{{$x}}", "undefined variable"),
            ("{{index .A 0}}", "can't index"),
            ("{{.A | .A}}", "can't give argument to non-function"),
            ("{{(.A}}", "unclosed left paren"),
            ("{{range .A}}{{end}}", "can't iterate"),
        ] {
            let error = fails(template);
            assert!(error.contains(part), "{template}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_not_fatal() {
        let deep = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
        assert!(fails(&deep).contains("nested"));
        let doubling = format!("{{{{json .{}}}}}", " | json".repeat(60));
        assert!(fails(&doubling).contains("bytes"));
        let deep = "{{if 1}}".repeat(5000);
        assert!(fails(&deep).contains("nested"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            fuzz_template(text.as_bytes());
        }

        #[test]
        fn never_panics_on_actions(
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "{{", "}}", "if ", "else", "end", "range ", "with ", ".", ".A", ".A.b", "$x",
                    ":=", "=", ",", "|", "(", ")", "\"s\"", "`r`", "1", "-3", "2.5", "index ", "json ",
                    "printf \"%d %5s\" ", "len ", "slice ", "-", " ", "/* c */", "truncate ", "pad ",
                    "nil", "true", "break", "continue", "é", "join ", "split ",
                ]), 0..30)
        ) {
            fuzz_template(words.concat().as_bytes());
        }
    }
}
