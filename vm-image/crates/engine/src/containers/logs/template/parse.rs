//! From a template's text to its nodes.

use super::functions;

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Output(Pipeline),
    Branch { kind: Branch, pipeline: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Branch {
    If,
    With,
    Range,
}

impl Branch {
    fn of(word: &str) -> Option<Self> {
        match word {
            "if" => Some(Self::If),
            "with" => Some(Self::With),
            "range" => Some(Self::Range),
            _ => None,
        }
    }
}

/// Commands, each of which gets what the one before made as its last argument.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) commands: Vec<Command>,
}

impl Pipeline {
    /// Where it begins, and as it is written.
    pub(super) fn place(&self) -> (usize, String) {
        let texts: Vec<&str> = self.commands.iter().map(|command| command.text.as_str()).collect();
        (self.commands.first().map_or(0, |command| command.at), texts.join(" | "))
    }
}

#[derive(Debug)]
pub(super) struct Command {
    /// At least one: a function with its arguments, or a value.
    pub(super) words: Vec<Word>,
    /// As it is written, and where: for errors.
    pub(super) text: String,
    pub(super) at: usize,
}

#[derive(Debug)]
pub(super) struct Word {
    pub(super) what: Operand,
    pub(super) text: String,
    pub(super) at: usize,
}

#[derive(Debug)]
pub(super) enum Operand {
    Dot,
    /// Fields of the dot, or of `$`.
    Fields {
        of_root: bool,
        names: Vec<String>,
    },
    Function(String),
    Text(String),
    Number(i64),
    Truth(bool),
    Inner(Pipeline),
}

/// How many actions and how many parentheses a template may have: each can be in another, and reading them takes stack.
const MOST: usize = 100;

/// Reads a template. An error begins with the line that it is in.
pub(super) fn parse(template: &str) -> Result<Vec<Node>, String> {
    if template.matches("{{").count() > MOST || template.matches('(').count() > MOST {
        return Err(format!("1: more than {MOST} actions or parentheses are not supported in a tag"));
    }
    let mut parser = Parser { template, at: 0 };
    let (nodes, end) = parser.nodes().map_err(|why| parser.located(&why))?;
    match end {
        Stop::Template => Ok(nodes),
        Stop::Else(_) => Err(parser.located("unexpected {{else}}")),
        Stop::End => Err(parser.located("unexpected {{end}}")),
    }
}

struct Parser<'t> {
    template: &'t str,
    at: usize,
}

/// What a list of nodes ends with.
enum Stop {
    Template,
    End,
    /// With what stands behind the `else`, if that is an `if` or `with` of its own.
    Else(Option<(Branch, usize, String)>),
}

impl<'t> Parser<'t> {
    fn located(&self, why: &str) -> String {
        let line = self.template[..self.at].matches('\n').count() + 1;
        format!("{line}: {why}")
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Stop), String> {
        let mut nodes = Vec::new();
        loop {
            let rest = &self.template[self.at..];
            let Some(begin) = rest.find("{{") else {
                nodes.push(Node::Text(rest.to_owned()));
                self.at = self.template.len();
                return Ok((nodes, Stop::Template));
            };
            let (before, after) = (&rest[..begin], &rest[begin + 2..]);
            let trims = after.starts_with("- ");
            nodes.push(Node::Text(if trims { before.trim_end() } else { before }.to_owned()));
            self.at += begin + 2 + usize::from(trims);
            let (action, at) = self.action()?;
            let word = action.trim_start();
            let at = at + action.len() - word.len();
            let (word, rest) = word.split_at(word.find(|c: char| !c.is_alphanumeric()).unwrap_or(word.len()));
            match word {
                "end" => return Ok((nodes, Stop::End)),
                "else" => return Ok((nodes, Stop::Else(chained(rest, at + 4)))),
                "define" | "template" | "block" | "break" | "continue" => {
                    return Err(format!("{{{{{word}}}}} is not supported in a tag"));
                }
                _ if action.trim_start().starts_with("/*") => {}
                _ => nodes.push(match Branch::of(word) {
                    Some(kind) => self.branch(kind, at + word.len(), rest.to_owned())?,
                    None => Node::Output(pipeline(action.trim_start(), at, "command")?),
                }),
            }
        }
    }

    /// What is between the braces, and where it begins. Goes on behind them.
    fn action(&mut self) -> Result<(&'t str, usize), String> {
        let (template, begin) = (self.template, self.at);
        let mut chars = template[begin..].char_indices().peekable();
        while let Some((offset, letter)) = chars.next() {
            let here = &template[begin + offset..];
            match letter {
                '"' | '`' => skip_quoted(letter, &mut chars)?,
                '/' if here.starts_with("/*") => {
                    let end = here.find("*/").ok_or("unclosed comment")? + offset + 2;
                    while chars.peek().is_some_and(|(next, _)| *next < end) {
                        chars.next();
                    }
                }
                '}' if here.starts_with("}}") => {
                    let mut action = &template[begin..begin + offset];
                    self.at = begin + offset + 2;
                    if let Some(shorter) = action.strip_suffix(" -") {
                        action = shorter;
                        let rest = &template[self.at..];
                        self.at += rest.len() - rest.trim_start().len();
                    }
                    return Ok((action.trim_end(), begin));
                }
                _ => {}
            }
        }
        Err("unclosed action".into())
    }

    fn branch(&mut self, kind: Branch, at: usize, text: String) -> Result<Node, String> {
        let name = match kind {
            Branch::If => "if",
            Branch::With => "with",
            Branch::Range => "range",
        };
        let pipeline = pipeline(text.trim_start(), at + text.len() - text.trim_start().len(), name)?;
        let (then, end) = self.nodes()?;
        let otherwise = match end {
            Stop::End => Vec::new(),
            // The inner one takes the end.
            Stop::Else(Some((kind, at, text))) => vec![self.branch(kind, at, text)?],
            Stop::Else(None) => match self.nodes()? {
                (otherwise, Stop::End) => otherwise,
                (_, Stop::Else(_)) => return Err("expected end; found {{else}}".into()),
                (_, Stop::Template) => return Err("unexpected EOF".into()),
            },
            Stop::Template => return Err("unexpected EOF".into()),
        };
        Ok(Node::Branch { kind, pipeline, then, otherwise })
    }
}

fn chained(rest: &str, at: usize) -> Option<(Branch, usize, String)> {
    let text = rest.trim_start();
    let at = at + rest.len() - text.len();
    let (word, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    Some((Branch::of(word)?, at + word.len(), rest.to_owned()))
}

type Chars<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

fn skip_quoted(quote: char, chars: &mut Chars<'_>) -> Result<(), String> {
    while let Some((_, letter)) = chars.next() {
        match letter {
            '\\' if quote == '"' => drop(chars.next()),
            letter if letter == quote => return Ok(()),
            _ => {}
        }
    }
    Err(if quote == '"' { "unterminated quoted string" } else { "unterminated raw quoted string" }.into())
}

/// Reads `text`, which begins at `at` in the template. `what` is what a value is missing for.
fn pipeline(text: &str, at: usize, what: &str) -> Result<Pipeline, String> {
    let mut commands = Vec::new();
    for (part, offset) in split_outside(text, '|')? {
        let words = words(part, at + offset)?;
        let (Some(first), Some(last)) = (words.first(), words.last()) else {
            return Err(format!("missing value for {what}"));
        };
        let span = first.at - at - offset..last.at - at - offset + last.text.len();
        commands.push(Command { text: part[span].to_owned(), at: first.at, words });
    }
    Ok(Pipeline { commands })
}

/// The parts of a text between separators that are in no quotes and no parentheses, with where they begin.
fn split_outside(text: &str, separator: char) -> Result<Vec<(&str, usize)>, String> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    let mut chars = text.char_indices().peekable();
    while let Some((offset, letter)) = chars.next() {
        match letter {
            '"' | '`' => skip_quoted(letter, &mut chars)?,
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or("unexpected right paren")?,
            letter if letter == separator && depth == 0 => {
                parts.push((&text[begin..offset], begin));
                begin = offset + 1;
            }
            _ => {}
        }
    }
    if depth > 0 {
        return Err("unclosed left paren".into());
    }
    parts.push((&text[begin..], begin));
    Ok(parts)
}

fn words(text: &str, at: usize) -> Result<Vec<Word>, String> {
    let parts = split_outside(text, ' ')?;
    let words = parts.into_iter().filter(|(part, _)| !part.is_empty());
    words
        .map(|(part, offset)| {
            Ok(Word { what: operand(part, at + offset)?, text: part.to_owned(), at: at + offset })
        })
        .collect()
}

fn operand(text: &str, at: usize) -> Result<Operand, String> {
    let bad = || format!("unexpected {text:?} in operand");
    if let Some(inner) = text.strip_prefix('(') {
        let inner = inner.strip_suffix(')').ok_or_else(bad)?;
        return Ok(Operand::Inner(pipeline(inner, at + 1, "parenthesized pipeline")?));
    }
    if text.starts_with('"') {
        return serde_json::from_str(text).map(Operand::Text).map_err(|_| bad());
    }
    if let Some(raw) = text.strip_prefix('`') {
        return raw.strip_suffix('`').map(|raw| Operand::Text(raw.to_owned())).ok_or_else(bad);
    }
    if let Ok(number) = text.parse() {
        return Ok(Operand::Number(number));
    }
    let names = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
    match text {
        "." => Ok(Operand::Dot),
        "$" => Ok(Operand::Fields { of_root: true, names: Vec::new() }),
        "true" | "false" => Ok(Operand::Truth(text == "true")),
        _ if text.starts_with("$.") => Ok(Operand::Fields { of_root: true, names: names(&text[2..]) }),
        _ if text.starts_with('$') => Err("variables are not supported in a tag".into()),
        _ if text.starts_with('.') => Ok(Operand::Fields { of_root: false, names: names(&text[1..]) }),
        _ if text.chars().all(|c| c.is_alphanumeric() || c == '_') => match functions::find(text) {
            Some(_) => Ok(Operand::Function(text.to_owned())),
            None => Err(format!("function {text:?} not defined")),
        },
        _ => Err(bad()),
    }
}
