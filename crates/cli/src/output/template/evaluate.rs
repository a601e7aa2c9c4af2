//! Runs a parsed template.

use std::fmt::Write as _;

use serde_json::Value;

use super::Scope;
use super::functions;
use super::parser::{Node, Operand, Pipeline};

/// Renders nodes in a scope.
pub(super) fn render(nodes: &[Node], scope: &Scope<'_>) -> Result<String, String> {
    let mut run = Run {
        scope: *scope,
        variables: vec![(String::new(), scope.dot.clone())],
        out: String::new(),
    };
    run.nodes(nodes, scope.dot)?;
    Ok(run.out)
}

struct Run<'a> {
    scope: Scope<'a>,
    variables: Vec<(String, Value)>,
    out: String,
}

/// Whether to go on after a node.
enum Flow {
    On,
    Break,
    Continue,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        let depth = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(node, dot)?;
            if !matches!(flow, Flow::On) {
                break;
            }
        }
        self.variables.truncate(depth);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    display_into(&mut self.out, &value);
                }
            }
            Node::If {
                condition,
                then,
                otherwise,
            } => {
                let depth = self.variables.len();
                let is_true = is_true(&self.pipeline(condition, dot)?);
                let flow = self.nodes(if is_true { then } else { otherwise }, dot);
                self.variables.truncate(depth);
                return flow;
            }
            Node::With {
                value,
                then,
                otherwise,
            } => {
                let depth = self.variables.len();
                let value = self.pipeline(value, dot)?;
                let flow = if is_true(&value) {
                    self.nodes(then, &value)
                } else {
                    self.nodes(otherwise, dot)
                };
                self.variables.truncate(depth);
                return flow;
            }
            Node::Range {
                value,
                body,
                otherwise,
            } => return self.range(value, body, otherwise, dot),
        }
        Ok(Flow::On)
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, String> {
        let depth = self.variables.len();
        let value = self.commands(pipeline, dot)?;
        let items: Vec<(Value, Value)> = match value {
            Value::Null => Vec::new(),
            Value::Array(items) => items
                .into_iter()
                .enumerate()
                .map(|(index, item)| (index.into(), item))
                .collect(),
            Value::Object(fields) => {
                let mut items: Vec<(Value, Value)> = fields
                    .into_iter()
                    .map(|(name, value)| (name.into(), value))
                    .collect();
                items.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
                items
            }
            other => return Err(format!("range can't iterate over {}", display(&other))),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        for (key, item) in items {
            match pipeline.variables.as_slice() {
                [element] => self.bind(element, item.clone(), pipeline.is_assignment)?,
                [index, element] => {
                    self.bind(index, key, pipeline.is_assignment)?;
                    self.bind(element, item.clone(), pipeline.is_assignment)?;
                }
                _ => {}
            }
            let flow = self.nodes(body, &item)?;
            self.variables.truncate(depth);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::On)
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.commands(pipeline, dot)?;
        if let Some(name) = pipeline.variables.first() {
            self.bind(name, value.clone(), pipeline.is_assignment)?;
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut previous = None;
        for command in &pipeline.commands {
            previous = Some(self.command(command, previous, dot)?);
        }
        previous.ok_or_else(|| "missing value for command".into())
    }

    fn bind(&mut self, name: &str, value: Value, is_assignment: bool) -> Result<(), String> {
        if !is_assignment {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        let slot = self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name);
        match slot {
            Some((_, slot)) => {
                *slot = value;
                Ok(())
            }
            None => Err(format!("undefined variable \"${name}\"")),
        }
    }

    fn command(
        &mut self,
        operands: &[Operand],
        previous: Option<Value>,
        dot: &Value,
    ) -> Result<Value, String> {
        let Some((first, rest)) = operands.split_first() else {
            return Err("missing value for command".into());
        };
        let has_arguments = !rest.is_empty() || previous.is_some();
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(self.operand(operand, dot)?);
        }
        arguments.extend(previous);
        match first {
            Operand::Function(name) => functions::call(name, &arguments, self.scope.is_header),
            Operand::Field(path) if has_arguments => self.lookup(path, &arguments),
            _ if has_arguments => Err("can't give argument to non-function".into()),
            operand => self.operand(operand, dot),
        }
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Field(path) => walk(dot, path),
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Function(name) => functions::call(name, &[], self.scope.is_header),
            Operand::Variable { name, path } => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                match found {
                    Some((_, value)) => walk(value, path),
                    None => Err(format!("undefined variable \"${name}\"")),
                }
            }
            Operand::Group { pipeline, path } => {
                let value = self.pipeline(pipeline, dot)?;
                walk(&value, path)
            }
        }
    }

    /// `{{.Label "key"}}`: a field that takes a key.
    fn lookup(&self, path: &[String], arguments: &[Value]) -> Result<Value, String> {
        let ([name], [Value::String(key)]) = (path, arguments) else {
            return Err("can't give argument to non-function".into());
        };
        if self.scope.is_header {
            // Docker shows the last part of the label's name.
            let header = key.rsplit('.').next().unwrap_or(key);
            return Ok(header.replace(['-', '_'], " ").into());
        }
        match self.scope.lookups.and_then(|all| all.get(name.as_str())) {
            Some(values) => Ok(values.get(key).cloned().unwrap_or_else(|| "".into())),
            None => Err(format!(
                ".{name} has arguments but cannot be invoked as function"
            )),
        }
    }
}

fn walk(value: &Value, path: &[String]) -> Result<Value, String> {
    let mut current = value;
    for name in path {
        current = match current {
            Value::Object(fields) => fields.get(name).ok_or_else(|| {
                format!("<.{}>: map has no entry for key {name:?}", path.join("."))
            })?,
            Value::Null => {
                return Err(format!(
                    "<.{}>: nil pointer evaluating field {name}",
                    path.join(".")
                ));
            }
            other => {
                return Err(format!(
                    "<.{}>: can't evaluate field {name} in {}",
                    path.join("."),
                    display(other)
                ));
            }
        };
    }
    Ok(current.clone())
}

/// Go's truth: not the zero value of its type.
pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// A value as Go prints it with `%v`.
pub(super) fn display(value: &Value) -> String {
    let mut text = String::new();
    display_into(&mut text, value);
    text
}

fn display_into(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                display_into(out, item);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            out.push_str("map[");
            for (index, name) in names.into_iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(name);
                out.push(':');
                display_into(out, fields.get(name).unwrap_or(&Value::Null));
            }
            out.push(']');
        }
        // Writing to a String cannot fail.
        Value::Bool(_) | Value::Number(_) => {
            let _ = write!(out, "{value}");
        }
    }
}
