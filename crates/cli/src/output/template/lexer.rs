//! Cuts a template into text and actions, and actions into tokens.

use serde_json::Value;

/// A piece of a template.
#[derive(Debug, PartialEq)]
pub(super) enum Piece {
    /// Literal text.
    Text(String),
    /// What stands between `{{` and `}}`.
    Action(Vec<Token>),
}

/// A token of an action.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// `.`
    Dot,
    /// `.A.B`; `adjacent` if it follows the token before without a blank.
    Field {
        path: Vec<String>,
        adjacent: bool,
    },
    /// `$` or `$x` with fields.
    Variable {
        name: String,
        path: Vec<String>,
    },
    /// A function or keyword.
    Word(String),
    /// A constant.
    Literal(Value),
    Pipe,
    Comma,
    Declare,
    Assign,
    Open,
    Close,
}

/// Splits a template; applies the trim markers `{{- ` and ` -}}`.
pub(super) fn split(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut trims_next = false;
    while let Some((text, after)) = rest.split_once("{{") {
        let (after, trims_before) = match after.strip_prefix('-') {
            Some(trimmed) if trimmed.starts_with(char::is_whitespace) => (trimmed, true),
            _ => (after, false),
        };
        push_text(&mut pieces, text, trims_next, trims_before);
        let inner = after.trim_start();
        let (tokens, after) = if inner.starts_with("/*") {
            let (_, after) = inner.split_once("*/").ok_or("unclosed comment")?;
            (Vec::new(), after)
        } else {
            tokens(after)?
        };
        let is_comment = inner.starts_with("/*");
        let after = after.trim_start();
        let (after, trims_after) = match after.strip_prefix('-') {
            Some(trimmed) => (trimmed, true),
            None => (after, false),
        };
        rest = after.strip_prefix("}}").ok_or("unclosed action")?;
        trims_next = trims_after;
        if !is_comment {
            pieces.push(Piece::Action(tokens));
        }
    }
    push_text(&mut pieces, rest, trims_next, false);
    Ok(pieces)
}

fn push_text(pieces: &mut Vec<Piece>, text: &str, trims_start: bool, trims_end: bool) {
    let text = if trims_start { text.trim_start() } else { text };
    let text = if trims_end { text.trim_end() } else { text };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Reads tokens until `}}` or ` -}}`; returns what follows them.
fn tokens(mut rest: &str) -> Result<(Vec<Token>, &str), String> {
    let mut tokens: Vec<Token> = Vec::new();
    loop {
        let trimmed = rest.trim_start();
        let is_adjacent = trimmed.len() == rest.len();
        rest = trimmed;
        let Some(first) = rest.chars().next() else {
            return Err("unclosed action".into());
        };
        if rest.starts_with("}}") || rest.starts_with("-}}") {
            return Ok((tokens, rest));
        }
        let (token, after) = match first {
            '|' => (Token::Pipe, tail(rest, 1)),
            ',' => (Token::Comma, tail(rest, 1)),
            '(' => (Token::Open, tail(rest, 1)),
            ')' => (Token::Close, tail(rest, 1)),
            ':' if rest.starts_with(":=") => (Token::Declare, tail(rest, 2)),
            '=' => (Token::Assign, tail(rest, 1)),
            '"' => quoted(rest)?,
            '`' => {
                let (text, after) = tail(rest, 1)
                    .split_once('`')
                    .ok_or("unterminated raw quoted string")?;
                (Token::Literal(text.into()), after)
            }
            '.' if !starts_number(tail(rest, 1)) => {
                let (path, after) = path(rest)?;
                if path.is_empty() {
                    (Token::Dot, after)
                } else {
                    (
                        Token::Field {
                            path,
                            adjacent: is_adjacent && !tokens.is_empty(),
                        },
                        after,
                    )
                }
            }
            '$' => {
                let (name, after) = word(tail(rest, 1));
                let (path, after) = path(after)?;
                let name = name.to_owned();
                (Token::Variable { name, path }, after)
            }
            '+' | '-' | '.' | '0'..='9' => number(rest)?,
            c if c == '_' || c.is_alphabetic() => {
                let (name, after) = word(rest);
                let token = match name {
                    "true" => Token::Literal(true.into()),
                    "false" => Token::Literal(false.into()),
                    "nil" => Token::Literal(Value::Null),
                    name => Token::Word(name.to_owned()),
                };
                (token, after)
            }
            other => return Err(format!("unexpected {other:?} in command")),
        };
        tokens.push(token);
        rest = after;
    }
}

fn tail(text: &str, from: usize) -> &str {
    text.get(from..).unwrap_or_default()
}

fn starts_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

fn word(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !(c == '_' || c.is_alphanumeric()))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// `.A.B`: names, each after a dot. A single dot yields no names.
fn path(mut rest: &str) -> Result<(Vec<String>, &str), String> {
    let mut names = Vec::new();
    while let Some(after) = rest.strip_prefix('.') {
        let (name, next) = word(after);
        if name.is_empty() {
            if names.is_empty() {
                return Ok((names, after));
            }
            return Err("unexpected . after field".into());
        }
        names.push(name.to_owned());
        rest = next;
    }
    Ok((names, rest))
}

fn quoted(text: &str) -> Result<(Token, &str), String> {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => {
                let (literal, after) = text.split_at(at + 1);
                // JSON's escapes are those of Go that occur here.
                let value: String = serde_json::from_str(literal)
                    .map_err(|error| format!("bad string {literal}: {error}"))?;
                return Ok((Token::Literal(value.into()), after));
            }
            '\n' => break,
            _ => {}
        }
    }
    Err("unterminated quoted string".into())
}

fn number(text: &str) -> Result<(Token, &str), String> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.' | '_')))
        .unwrap_or(text.len());
    let (digits, after) = text.split_at(end);
    let value = match digits.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok().map(Value::from),
        None => digits.parse::<i64>().ok().map(Value::from).or_else(|| {
            digits
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
                .map(Value::from)
        }),
    };
    match value {
        Some(value) => Ok((Token::Literal(value), after)),
        None => Err(format!("bad number syntax: {digits:?}")),
    }
}
