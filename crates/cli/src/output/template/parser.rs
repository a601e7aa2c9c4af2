//! Parses actions into a tree.

use serde_json::Value;

use super::lexer::{Piece, Token};

/// How deep parentheses and blocks may be nested.
const DEPTH_LIMIT: usize = 100;

/// A node of the tree.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        value: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Break,
    Continue,
}

/// Commands whose results flow from left to right, perhaps into variables.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub variables: Vec<String>,
    pub is_assignment: bool,
    pub commands: Vec<Vec<Operand>>,
}

/// A word of a command.
#[derive(Debug)]
pub(super) enum Operand {
    Dot,
    Field(Vec<String>),
    Variable {
        name: String,
        path: Vec<String>,
    },
    Literal(Value),
    Function(String),
    Group {
        pipeline: Pipeline,
        path: Vec<String>,
    },
}

/// Parses the pieces of a template.
pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, String> {
    let mut pieces = pieces.into_iter();
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        Ending::Eof => Ok(nodes),
        Ending::Block => Err("unexpected {{end}}".into()),
        Ending::Else(_) => Err("unexpected {{else}}".into()),
    }
}

/// What ended a block.
enum Ending {
    Eof,
    Block,
    /// `{{else …}}` with its tokens.
    Else(Vec<Token>),
}

fn block(
    pieces: &mut std::vec::IntoIter<Piece>,
    depth: usize,
) -> Result<(Vec<Node>, Ending), String> {
    if depth > DEPTH_LIMIT {
        return Err("blocks are nested too deeply".into());
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        let keyword = match tokens.first() {
            Some(Token::Word(word)) => word.as_str(),
            _ => "",
        };
        match keyword {
            "end" => return Ok((nodes, Ending::Block)),
            "else" => return Ok((nodes, Ending::Else(tokens.into_iter().skip(1).collect()))),
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "if" | "with" | "range" => {
                let keyword = keyword.to_owned();
                let tokens = tokens.into_iter().skip(1).collect();
                nodes.push(control(&keyword, tokens, pieces, depth)?);
            }
            "template" | "define" | "block" => {
                return Err(format!("{{{{{keyword}}}}} is not supported"));
            }
            _ => nodes.push(Node::Action(pipeline(tokens)?)),
        }
    }
    Ok((nodes, Ending::Eof))
}

fn control(
    keyword: &str,
    tokens: Vec<Token>,
    pieces: &mut std::vec::IntoIter<Piece>,
    depth: usize,
) -> Result<Node, String> {
    let value = pipeline(tokens)?;
    let (then, end) = block(pieces, depth + 1)?;
    let otherwise = match end {
        Ending::Eof => return Err("unexpected EOF".into()),
        Ending::Block => Vec::new(),
        Ending::Else(mut tokens) if !tokens.is_empty() => {
            // `{{else if …}}` shares the {{end}} of the whole chain.
            let first = tokens.remove(0);
            match first {
                Token::Word(word) if word == keyword && word != "range" => {
                    vec![control(keyword, tokens, pieces, depth + 1)?]
                }
                _ => return Err("unexpected token after {{else".into()),
            }
        }
        Ending::Else(_) => match block(pieces, depth + 1)? {
            (otherwise, Ending::Block) => otherwise,
            (_, Ending::Eof) => return Err("unexpected EOF".into()),
            (_, Ending::Else(_)) => return Err("expected end; found {{else}}".into()),
        },
    };
    Ok(match keyword {
        "if" => Node::If {
            condition: value,
            then,
            otherwise,
        },
        "with" => Node::With {
            value,
            then,
            otherwise,
        },
        _ => Node::Range {
            value,
            body: then,
            otherwise,
        },
    })
}

fn pipeline(tokens: Vec<Token>) -> Result<Pipeline, String> {
    let mut tokens = tokens.into_iter().peekable();
    let parsed = pipeline_until(&mut tokens, 0)?;
    match tokens.next() {
        None => Ok(parsed),
        Some(_) => Err("unexpected right paren".into()),
    }
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Token>>;

/// Parses until the tokens end, or up to (not including) a `)`.
fn pipeline_until(tokens: &mut Tokens, depth: usize) -> Result<Pipeline, String> {
    if depth > DEPTH_LIMIT {
        return Err("parentheses are nested too deeply".into());
    }
    let (variables, is_assignment) = declaration(tokens)?;
    let mut commands = Vec::new();
    let mut operands = Vec::new();
    loop {
        match tokens.peek() {
            None | Some(Token::Close) => break,
            _ => {}
        }
        let Some(token) = tokens.next() else { break };
        let operand = match token {
            Token::Pipe => {
                finish_command(&mut commands, &mut operands)?;
                continue;
            }
            Token::Dot => Operand::Dot,
            Token::Field { path, adjacent } => {
                if adjacent && let Some(Operand::Group { path: group, .. }) = operands.last_mut() {
                    group.extend(path);
                    continue;
                }
                Operand::Field(path)
            }
            Token::Variable { name, path } => Operand::Variable { name, path },
            Token::Word(name) => Operand::Function(name),
            Token::Literal(value) => Operand::Literal(value),
            Token::Open => {
                let inner = pipeline_until(tokens, depth + 1)?;
                if tokens.next() != Some(Token::Close) {
                    return Err("unclosed left paren".into());
                }
                Operand::Group {
                    pipeline: inner,
                    path: Vec::new(),
                }
            }
            Token::Comma | Token::Declare | Token::Assign | Token::Close => {
                return Err("unexpected punctuation in operand".into());
            }
        };
        operands.push(operand);
    }
    finish_command(&mut commands, &mut operands)?;
    Ok(Pipeline {
        variables,
        is_assignment,
        commands,
    })
}

fn finish_command(
    commands: &mut Vec<Vec<Operand>>,
    operands: &mut Vec<Operand>,
) -> Result<(), String> {
    if operands.is_empty() {
        return Err("missing value for command".into());
    }
    commands.push(std::mem::take(operands));
    Ok(())
}

/// `$x :=`, `$x =`, `$i, $x :=`.
fn declaration(tokens: &mut Tokens) -> Result<(Vec<String>, bool), String> {
    let mut ahead = tokens.clone();
    let mut names = Vec::new();
    loop {
        match ahead.next() {
            Some(Token::Variable { name, path }) if path.is_empty() && !name.is_empty() => {
                names.push(name);
            }
            _ => return Ok((Vec::new(), false)),
        }
        let is_assignment = match ahead.next() {
            Some(Token::Comma) => continue,
            Some(Token::Declare) => false,
            Some(Token::Assign) => true,
            _ => return Ok((Vec::new(), false)),
        };
        if names.len() > 2 {
            return Err("too many declarations in command".into());
        }
        *tokens = ahead;
        return Ok((names, is_assignment));
    }
}
