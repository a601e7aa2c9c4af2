//! JSON as people read it: indented, keys in the engine's order.

/// Indents JSON text by four spaces, as `inspect` prints it. Works on the text, so that order of
/// keys and spelling of numbers stay the engine's; invalid JSON comes out garbled, not lost.
#[must_use]
pub fn indent(text: &str) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    let mut depth = 0usize;
    let mut is_in_string = false;
    let mut is_escaped = false;
    let mut characters = text
        .trim()
        .chars()
        .filter(Filter::default().keep())
        .peekable();
    while let Some(c) = characters.next() {
        if is_in_string {
            out.push(c);
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                '"' => is_in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            '"' => {
                is_in_string = true;
                out.push(c);
            }
            '{' | '[' => {
                out.push(c);
                if let Some(close) = characters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => out.push(c),
        }
    }
    out
}

/// The same JSON on one line, without blanks between its parts.
#[must_use]
pub fn compact(text: &str) -> String {
    text.chars().filter(Filter::default().keep()).collect()
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("    ");
    }
}

/// Drops blanks outside strings.
#[derive(Default)]
struct Filter {
    is_in_string: bool,
    is_escaped: bool,
}

impl Filter {
    fn keep(mut self) -> impl FnMut(&char) -> bool {
        move |c| {
            if self.is_in_string {
                match c {
                    _ if self.is_escaped => self.is_escaped = false,
                    '\\' => self.is_escaped = true,
                    '"' => self.is_in_string = false,
                    _ => {}
                }
                return true;
            }
            self.is_in_string = *c == '"';
            !c.is_ascii_whitespace()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn indents_like_docker() {
        let text = r#"[ {"b":1.50,"a":[],"c":{"d":"x: ,\"{"},"e":[1,2],"f":{ } }]"#;
        let expected = "[\n    {\n        \"b\": 1.50,\n        \"a\": [],\n        \"c\": {\n            \"d\": \"x: ,\\\"{\"\n        },\n        \"e\": [\n            1,\n            2\n        ],\n        \"f\": {}\n    }\n]";
        assert_eq!(indent(text), expected);
        assert_eq!(compact(expected), compact(text));
    }

    proptest! {
        #[test]
        fn keeps_the_value(text in "[a-z\\[\\]{}\",: \\\\]{0,60}") {
            let value = serde_json::Value::from(vec![text.clone()]);
            let indented = indent(&value.to_string());
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&indented).unwrap(), value);
            let _ = indent(&text);
        }
    }
}
