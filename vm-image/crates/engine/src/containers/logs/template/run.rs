//! From nodes and data to text.

use std::cell::Cell;

use super::functions;
use super::parse::{Branch, Command, Node, Operand, Pipeline, Word};
use super::value::Value;

/// How many bytes a template may make or copy on its way, with one more for each step: far more than any tag that means something, and
/// what is over in a moment.
const MOST_WORK: usize = 4 << 20;

/// How much of that is left.
#[derive(Debug)]
pub(super) struct Budget(Cell<usize>);

impl Default for Budget {
    fn default() -> Self {
        Self(Cell::new(MOST_WORK))
    }
}

impl Budget {
    fn spend(&self, amount: usize) -> Result<(), String> {
        let left = self.0.get().checked_sub(amount);
        self.0.set(left.unwrap_or(0));
        left.map(drop)
            .ok_or_else(|| format!("more than {MOST_WORK} bytes and steps are not supported in a tag"))
    }
}

/// What names in a template stand for.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// The template's name.
    pub(super) name: &'a str,
    pub(super) root: &'a Value,
    pub(super) dot: &'a Value,
    pub(super) budget: &'a Budget,
}

/// Appends what the nodes make. An error begins with the line and column that it is in.
pub(super) fn run(nodes: &[Node], scope: &Scope<'_>, text: &mut String) -> Result<(), String> {
    for node in nodes {
        match node {
            Node::Text(plain) => {
                scope.budget.spend(plain.len()).map_err(|why| scope.located(0, "text", &why))?;
                text.push_str(plain);
            }
            Node::Output(pipeline) => {
                let shown = scope.pipeline(pipeline)?.to_string();
                scope.spend(pipeline, shown.len())?;
                text.push_str(&shown);
            }
            Node::Branch { kind, pipeline, then, otherwise } => {
                scope.branch(*kind, pipeline, (then, otherwise), text)?;
            }
        }
    }
    Ok(())
}

impl Scope<'_> {
    fn branch(
        &self,
        kind: Branch,
        pipeline: &Pipeline,
        (then, otherwise): (&[Node], &[Node]),
        text: &mut String,
    ) -> Result<(), String> {
        let value = self.pipeline(pipeline)?;
        let mut each = |item: &Value| {
            self.spend(pipeline, 1)?;
            run(then, &Scope { dot: item, ..*self }, text)
        };
        match (kind, &value) {
            _ if !value.is_true() => run(otherwise, self, text),
            (Branch::If, _) => each(self.dot),
            (Branch::With, value) => each(value),
            (Branch::Range, Value::List(items)) => items.iter().try_for_each(each),
            (Branch::Range, Value::Map(entries)) => entries.values().try_for_each(each),
            (Branch::Range, Value::Number(count)) => {
                (0..*count).try_for_each(|item| each(&Value::Number(item)))
            }
            (Branch::Range, other) => {
                let (at, written) = pipeline.place();
                Err(self.located(at, &written, &format!("range can't iterate over {other}")))
            }
        }
    }

    fn spend(&self, pipeline: &Pipeline, amount: usize) -> Result<(), String> {
        self.budget.spend(amount).map_err(|why| {
            let (at, written) = pipeline.place();
            self.located(at, &written, &why)
        })
    }

    fn pipeline(&self, pipeline: &Pipeline) -> Result<Value, String> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last)?);
        }
        Ok(last.unwrap_or(Value::Missing))
    }

    fn command(&self, command: &Command, last: Option<Value>) -> Result<Value, String> {
        let located = |why: String| self.located(command.at, &command.text, &why);
        let [first, arguments @ ..] = command.words.as_slice() else { return Ok(Value::Missing) };
        let Operand::Function(name) = &first.what else {
            if !arguments.is_empty() || last.is_some() {
                let why = match &first.what {
                    Operand::Fields { names, .. } if !names.is_empty() => {
                        format!("{} has arguments but cannot be invoked as function", names.join("."))
                    }
                    _ => format!("can't give argument to non-function {}", first.text),
                };
                return Err(self.located(first.at, &first.text, &why));
            }
            return self.operand(first);
        };
        let mut values = Vec::new();
        for argument in arguments {
            values.push(self.operand(argument)?);
        }
        values.extend(last);
        let function =
            functions::find(name).ok_or_else(|| located(format!("{name:?} is not a defined function")))?;
        let made = function.call(name, values).map_err(&located)?;
        self.budget.spend(made.size()).map_err(located)?;
        Ok(made)
    }

    fn operand(&self, word: &Word) -> Result<Value, String> {
        let value = self.value(word)?;
        self.budget.spend(value.size()).map_err(|why| self.located(word.at, &word.text, &why))?;
        Ok(value)
    }

    fn value(&self, word: &Word) -> Result<Value, String> {
        match &word.what {
            Operand::Dot => Ok(self.dot.clone()),
            Operand::Text(text) => Ok(Value::Text(text.clone())),
            Operand::Number(number) => Ok(Value::Number(*number)),
            Operand::Truth(truth) => Ok(Value::Truth(*truth)),
            Operand::Inner(pipeline) => self.pipeline(pipeline),
            Operand::Function(name) => {
                let function =
                    functions::find(name).ok_or_else(|| format!("{name:?} is not a defined function"));
                let called = function.and_then(|function| function.call(name, Vec::new()));
                called.map_err(|why| self.located(word.at, &word.text, &why))
            }
            Operand::Fields { of_root, names } => {
                // Go points at the second name, if there is one.
                let at = match names.as_slice() {
                    _ if *of_root => word.at + 1,
                    [first, _, ..] => word.at + 1 + first.len(),
                    _ => word.at,
                };
                let mut value = if *of_root { self.root } else { self.dot };
                for name in names {
                    value = value.field(name).map_err(|why| self.located(at, &word.text, &why))?;
                }
                Ok(value.clone())
            }
        }
    }

    /// In the words of Go's `text/template`, which counts columns from 0.
    fn located(&self, at: usize, text: &str, why: &str) -> String {
        format!("1:{at}: executing {:?} at <{text}>: {why}", self.name)
    }
}
