//! Functions of templates: those of Go's `text/template` and docker's additions.

use std::cmp::Ordering;

use serde_json::Value;

use super::evaluate::{display, is_true};

/// Widths and paddings beyond this are mistakes.
const WIDTH_LIMIT: usize = 4096;
/// Longer texts are mistakes.
const TEXT_LIMIT_BYTES: usize = 16 << 20;
/// Longest text that `json` quotes: a chain of them doubles it each time.
const QUOTED_LIMIT_BYTES: usize = 1 << 20;

/// Calls a function by name.
pub(super) fn call(name: &str, arguments: &[Value], is_header: bool) -> Result<Value, String> {
    match apply(name, arguments, is_header)? {
        Value::String(text) if text.len() > TEXT_LIMIT_BYTES => {
            Err(format!("{name} makes a text of {} bytes", text.len()))
        }
        value => Ok(value),
    }
}

fn apply(name: &str, arguments: &[Value], is_header: bool) -> Result<Value, String> {
    let wrong = || format!("wrong number of args for {name}: {}", arguments.len());
    if is_header
        && matches!(
            name,
            "json" | "join" | "split" | "title" | "lower" | "upper" | "pad" | "truncate"
        )
    {
        return arguments.first().cloned().ok_or_else(wrong);
    }
    match (name, arguments) {
        ("json", [Value::String(text)]) if text.len() > QUOTED_LIMIT_BYTES => {
            Err(format!("json of a text of {} bytes", text.len()))
        }
        ("json", [value]) => Ok(value.to_string().into()),
        ("upper", [value]) => Ok(text(value)?.to_uppercase().into()),
        ("lower", [value]) => Ok(text(value)?.to_lowercase().into()),
        ("title", [value]) => Ok(title(text(value)?).into()),
        ("join", [Value::Array(items), separator]) => {
            let items: Vec<String> = items.iter().map(display).collect();
            Ok(items.join(text(separator)?).into())
        }
        ("join", [Value::Null, _]) => Ok("".into()),
        ("split", [value, separator]) => {
            let parts: Vec<Value> = text(value)?
                .split(text(separator)?)
                .map(Value::from)
                .collect();
            Ok(parts.into())
        }
        ("pad", [value, before, after]) => {
            let (before, after) = (width(before)?, width(after)?);
            let value = text(value)?;
            Ok(format!("{:before$}{value}{:after$}", "", "").into())
        }
        ("truncate", [value, length]) => {
            let length = width(length)?;
            Ok(text(value)?.chars().take(length).collect::<String>().into())
        }
        ("print", values) => Ok(print(values).into()),
        ("println", values) => {
            let words: Vec<String> = values.iter().map(display).collect();
            Ok(format!("{}\n", words.join(" ")).into())
        }
        ("printf", [Value::String(format), values @ ..]) => printf(format, values).map(Value::from),
        ("index", [value, keys @ ..]) => index(value, keys),
        ("slice", [value, bounds @ ..]) => slice(value, bounds),
        ("len", [value]) => length(value).map(Value::from),
        ("not", [value]) => Ok((!is_true(value)).into()),
        ("and", [first, rest @ ..]) => Ok(rest
            .iter()
            .fold(
                first,
                |so_far, next| {
                    if is_true(so_far) { next } else { so_far }
                },
            )
            .clone()),
        ("or", [first, rest @ ..]) => Ok(rest
            .iter()
            .fold(
                first,
                |so_far, next| {
                    if is_true(so_far) { so_far } else { next }
                },
            )
            .clone()),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            Ok(rest.iter().any(|other| equal(first, other)).into())
        }
        ("ne", [a, b]) => Ok((!equal(a, b)).into()),
        ("lt", [a, b]) => Ok((order(a, b)? == Ordering::Less).into()),
        ("le", [a, b]) => Ok((order(a, b)? != Ordering::Greater).into()),
        ("gt", [a, b]) => Ok((order(a, b)? == Ordering::Greater).into()),
        ("ge", [a, b]) => Ok((order(a, b)? != Ordering::Less).into()),
        ("join" | "printf", [other, ..]) => Err(format!(
            "wrong type for value in {name}: {}",
            display(other)
        )),
        (
            "json" | "upper" | "lower" | "title" | "join" | "split" | "pad" | "truncate" | "printf"
            | "index" | "slice" | "len" | "not" | "and" | "or" | "eq" | "ne" | "lt" | "le" | "gt"
            | "ge",
            _,
        ) => Err(wrong()),
        _ => Err(format!("function \"{name}\" not defined")),
    }
}

fn text(value: &Value) -> Result<&str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("wrong type: expected string; got {}", display(value)))
}

fn width(value: &Value) -> Result<usize, String> {
    value
        .as_u64()
        .and_then(|number| usize::try_from(number).ok())
        .filter(|number| *number <= WIDTH_LIMIT)
        .ok_or_else(|| format!("not a usable length: {}", display(value)))
}

fn title(text: &str) -> String {
    let mut starts_word = true;
    text.chars()
        .flat_map(|c| {
            let upper = starts_word && c.is_alphabetic();
            starts_word = !c.is_alphanumeric() && c != '\'' && c != '_';
            let mapped: Vec<char> = if upper {
                c.to_uppercase().collect()
            } else {
                vec![c]
            };
            mapped
        })
        .collect()
}

/// Go's `Sprint`: a blank between operands of which neither is a string.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    let mut previous_is_text = true;
    for value in values {
        if !previous_is_text && !value.is_string() {
            out.push(' ');
        }
        out.push_str(&display(value));
        previous_is_text = value.is_string();
    }
    out
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut current = value.clone();
    for key in keys {
        current = match (&current, key) {
            (Value::Object(fields), Value::String(name)) => {
                // Go prints a missing entry of a map of anything as <no value>.
                fields
                    .get(name)
                    .cloned()
                    .unwrap_or_else(|| "<no value>".into())
            }
            (Value::Array(items), Value::Number(number)) => number
                .as_u64()
                .and_then(|index| items.get(usize::try_from(index).ok()?))
                .cloned()
                .ok_or_else(|| format!("error calling index: index out of range: {number}"))?,
            (other, _) => {
                return Err(format!(
                    "error calling index: can't index {}",
                    display(other)
                ));
            }
        };
    }
    Ok(current)
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let all = length(value)?;
    let (from, to) = match bounds {
        [] => (0, all),
        [from] => (width(from)?, all),
        [from, to] => (width(from)?, width(to)?),
        _ => return Err("wrong number of args for slice".into()),
    };
    let out_of_range = || format!("error calling slice: index out of range: {from}:{to}");
    match value {
        Value::String(text) => Ok(text.get(from..to).ok_or_else(out_of_range)?.into()),
        Value::Array(items) => Ok(items
            .get(from..to)
            .ok_or_else(out_of_range)?
            .to_vec()
            .into()),
        other => Err(format!("can't slice {}", display(other))),
    }
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(fields) => Ok(fields.len()),
        Value::Null => Ok(0),
        other => Err(format!("error calling len: len of {}", display(other))),
    }
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() < f64::EPSILON,
        _ => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    let incomparable = || "incompatible types for comparison".to_owned();
    match (a, b) {
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.partial_cmp(&b).ok_or_else(incomparable),
            _ => Err(incomparable()),
        },
    }
}

/// Go's `Sprintf` with the verbs s, v, q, d, x, X, t, f and the flags `-`, `0`, width, precision.
fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut out = String::new();
    let mut values = values.iter();
    let mut characters = format.chars().peekable();
    while let Some(c) = characters.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut is_left = false;
        let mut is_zero = false;
        while let Some(flag) = characters.next_if(|c| matches!(c, '-' | '0' | '+' | ' ' | '#')) {
            is_left |= flag == '-';
            is_zero |= flag == '0';
        }
        let number = |characters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut digits = String::new();
            while let Some(digit) = characters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits
                .parse::<usize>()
                .ok()
                .map(|width| width.min(WIDTH_LIMIT))
        };
        let field_width = number(&mut characters).unwrap_or(0);
        let precision = characters
            .next_if_eq(&'.')
            .map(|_| number(&mut characters).unwrap_or(0));
        let Some(verb) = characters.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            out.push_str("%!");
            out.push(verb);
            out.push_str("(MISSING)");
            continue;
        };
        let text = convert(verb, value, precision)?;
        let missing = field_width.saturating_sub(text.chars().count());
        match (is_left, is_zero && matches!(verb, 'd' | 'x' | 'X' | 'f')) {
            (true, _) => out.push_str(&format!("{text}{:missing$}", "")),
            (false, true) => match text.strip_prefix('-') {
                Some(digits) => out.push_str(&format!("-{}{digits}", "0".repeat(missing))),
                None => out.push_str(&format!("{}{text}", "0".repeat(missing))),
            },
            (false, false) => out.push_str(&format!("{:missing$}{text}", "")),
        }
    }
    Ok(out)
}

fn convert(verb: char, value: &Value, precision: Option<usize>) -> Result<String, String> {
    Ok(match (verb, value) {
        ('s' | 'v', value) => {
            let text = display(value);
            match precision {
                Some(length) => text.chars().take(length).collect(),
                None => text,
            }
        }
        ('q', value) => Value::from(display(value)).to_string(),
        ('t', Value::Bool(_)) => display(value),
        ('d', Value::Number(number)) if number.is_i64() || number.is_u64() => display(value),
        ('x', Value::Number(number)) if number.is_u64() => {
            format!("{:x}", number.as_u64().unwrap_or(0))
        }
        ('X', Value::Number(number)) if number.is_u64() => {
            format!("{:X}", number.as_u64().unwrap_or(0))
        }
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('f', Value::Number(number)) => {
            let number = number.as_f64().unwrap_or(0.0);
            format!("{number:.*}", precision.unwrap_or(6))
        }
        ('t' | 'd' | 'x' | 'X' | 'f', other) => {
            format!("%!{verb}({})", display(other))
        }
        _ => return Err(format!("printf: verb %{verb} is not supported")),
    })
}
