//! The functions that a template can call: those of dockerd's `daemon/logger/templates`, and Go's own.

use super::print;
use super::value::Value;

/// A function and how many arguments it takes.
#[derive(Clone, Copy)]
pub(super) struct Function {
    least: usize,
    most: Option<usize>,
    work: fn(&[Value]) -> Result<Value, String>,
}

impl Function {
    /// What it makes of these arguments.
    pub(super) fn call(self, name: &str, arguments: Vec<Value>) -> Result<Value, String> {
        let got = arguments.len();
        if got < self.least || self.most.is_some_and(|most| got > most) {
            let at_least = if self.most == Some(self.least) { "" } else { "at least " };
            return Err(format!("wrong number of args for {name}: want {at_least}{} got {got}", self.least));
        }
        (self.work)(&arguments).map_err(|why| format!("error calling {name}: {why}"))
    }
}

/// The function of this name.
pub(super) fn find(name: &str) -> Option<Function> {
    let exactly = |count, work| Function { least: count, most: Some(count), work };
    let from = |least, work| Function { least, most: None, work };
    Some(match name {
        "json" => exactly(1, |a| Ok(Value::Text(serde_json::to_string(&a[0]).unwrap_or_default()))),
        "split" => exactly(2, |a| Ok(split(text(&a[0])?, text(&a[1])?))),
        "join" => exactly(2, |a| Ok(Value::Text(texts(&a[0])?.join(text(&a[1])?)))),
        "title" => exactly(1, |a| Ok(Value::Text(title(text(&a[0])?)))),
        "lower" => exactly(1, |a| Ok(Value::Text(text(&a[0])?.to_lowercase()))),
        "upper" => exactly(1, |a| Ok(Value::Text(text(&a[0])?.to_uppercase()))),
        "pad" => exactly(3, |a| pad(text(&a[0])?, number(&a[1])?, number(&a[2])?)),
        "truncate" => exactly(2, |a| truncate(text(&a[0])?, number(&a[1])?)),
        "len" => exactly(1, |a| length(&a[0])),
        "index" => from(1, |a| a[1..].iter().try_fold(a[0].clone(), |value, key| index(&value, key))),
        "slice" => from(1, slice),
        "print" => from(0, |a| Ok(Value::Text(print::print(a)))),
        "println" => from(0, |a| Ok(Value::Text(print::println(a)))),
        "printf" => from(1, |a| print::format(text(&a[0])?, &a[1..]).map(Value::Text)),
        "not" => exactly(1, |a| Ok(Value::Truth(!a[0].is_true()))),
        "and" => from(1, |a| Ok(first(a, |value| !value.is_true()))),
        "or" => from(1, |a| Ok(first(a, Value::is_true))),
        "eq" => from(2, |a| equal_to_any(a).map(Value::Truth)),
        "ne" => exactly(2, |a| equal_to_any(a).map(|equal| Value::Truth(!equal))),
        "lt" => exactly(2, |a| order(a).map(|order| Value::Truth(order.is_lt()))),
        "le" => exactly(2, |a| order(a).map(|order| Value::Truth(order.is_le()))),
        "gt" => exactly(2, |a| order(a).map(|order| Value::Truth(order.is_gt()))),
        "ge" => exactly(2, |a| order(a).map(|order| Value::Truth(order.is_ge()))),
        _ => return None,
    })
}

fn text(value: &Value) -> Result<&str, String> {
    match value {
        Value::Text(text) => Ok(text),
        other => Err(format!("wrong type for value; expected string; got {}", other.kind())),
    }
}

fn number(value: &Value) -> Result<i64, String> {
    match value {
        Value::Number(number) => Ok(*number),
        other => Err(format!("wrong type for value; expected int; got {}", other.kind())),
    }
}

fn texts(value: &Value) -> Result<Vec<&str>, String> {
    match value {
        Value::List(items) => items.iter().map(text).collect(),
        other => Err(format!("wrong type for value; expected []string; got {}", other.kind())),
    }
}

fn split(text: &str, separator: &str) -> Value {
    let own = |part: &str| Value::Text(part.to_owned());
    Value::List(match separator {
        "" => text.chars().map(|letter| Value::Text(letter.into())).collect(),
        separator => text.split(separator).map(own).collect(),
    })
}

/// The first letter of each word in upper case.
fn title(text: &str) -> String {
    let mut before = ' ';
    let mut titled = String::new();
    for letter in text.chars() {
        let begins = !(before.is_alphanumeric() || before == '_' || before == '\'');
        if begins {
            titled.extend(letter.to_uppercase())
        } else {
            titled.push(letter)
        }
        before = letter;
    }
    titled
}

/// How many spaces or bytes a text may grow by: more is a mistake, or worse.
const MOST_PADDING: i64 = 1 << 12;

fn pad(text: &str, before: i64, after: i64) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(Value::Text(String::new()));
    }
    let spaces = |count: i64| match usize::try_from(count) {
        Ok(fits) if count <= MOST_PADDING => Ok(" ".repeat(fits)),
        _ => Err("strings: negative Repeat count".to_owned()),
    };
    Ok(Value::Text(format!("{}{text}{}", spaces(before)?, spaces(after)?)))
}

fn truncate(text: &str, length: i64) -> Result<Value, String> {
    let length = usize::try_from(length).map_err(|_| format!("slice bounds out of range [:{length}]"))?;
    Ok(Value::Text(cut(text, 0, length.min(text.len()))))
}

/// Bytes of a text; a letter that is cut is replaced, as it would be when it is written down.
fn cut(text: &str, from: usize, to: usize) -> String {
    String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        other => return Err(format!("len of type {}", other.kind())),
    };
    Ok(Value::Number(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    let position = |length: usize| {
        let at = number(key).map_err(|_| format!("cannot index slice/array with type {}", key.kind()))?;
        usize::try_from(at).ok().filter(|at| *at < length).ok_or_else(|| format!("index out of range: {at}"))
    };
    match value {
        Value::List(items) => Ok(items[position(items.len())?].clone()),
        Value::Text(text) => Ok(Value::Number(text.as_bytes()[position(text.len())?].into())),
        // What a Go map of texts has for a key that it has not: an empty one.
        Value::Map(entries) => {
            Ok(entries.get(text(key)?).cloned().unwrap_or_else(|| Value::Text(String::new())))
        }
        other => Err(format!("can't index item of type {}", other.kind())),
    }
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let (value, bounds) = (&arguments[0], &arguments[1..]);
    let length = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        other => return Err(format!("can't slice item of type {}", other.kind())),
    };
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(given) => {
            let given =
                number(given).map_err(|_| format!("cannot index slice/array with type {}", given.kind()))?;
            usize::try_from(given)
                .ok()
                .filter(|given| *given <= length)
                .ok_or_else(|| format!("index out of range: {given}"))
        }
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    Ok(match value {
        Value::List(items) => Value::List(items[from..to].to_vec()),
        other => Value::Text(cut(text(other)?, from, to)),
    })
}

/// The first value that decides, or the last.
fn first(values: &[Value], decides: fn(&Value) -> bool) -> Value {
    values.iter().find(|value| decides(value)).or(values.last()).cloned().unwrap_or(Value::Missing)
}

fn equal_to_any(values: &[Value]) -> Result<bool, String> {
    let (first, others) = (&values[0], &values[1..]);
    if others.iter().any(|other| std::mem::discriminant(other) != std::mem::discriminant(first)) {
        return Err("incompatible types for comparison".into());
    }
    Ok(others.contains(first))
}

fn order(values: &[Value]) -> Result<std::cmp::Ordering, String> {
    match values {
        [Value::Number(one), Value::Number(other)] => Ok(one.cmp(other)),
        [Value::Text(one), Value::Text(other)] => Ok(one.cmp(other)),
        _ => Err("incompatible types for comparison".into()),
    }
}
