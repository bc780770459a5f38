//! What templates work on.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
    Truth(bool),
    List(Vec<Value>),
    Map(BTreeMap<String, Value>),
    /// One whose fields are known: others are an error, where a map has no value for them.
    Struct {
        /// Go's name of its type.
        kind: &'static str,
        fields: BTreeMap<String, Value>,
    },
    /// What a map has for a key that is not in it.
    Missing,
}

impl Value {
    /// Whether `if` takes it for true.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Text(text) => !text.is_empty(),
            Self::Number(number) => *number != 0,
            Self::Truth(truth) => *truth,
            Self::List(items) => !items.is_empty(),
            Self::Map(entries) => !entries.is_empty(),
            Self::Struct { .. } => true,
            Self::Missing => false,
        }
    }

    /// Go's name of its type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Number(_) => "int",
            Self::Truth(_) => "bool",
            Self::List(_) => "[]string",
            Self::Map(_) => "map[string]string",
            Self::Struct { kind, .. } => kind,
            Self::Missing => "<nil>",
        }
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Text(text) => 1 + text.len(),
            Self::Number(_) | Self::Truth(_) | Self::Missing => 1,
            Self::List(items) => items.iter().map(Self::size).sum::<usize>() + 1,
            Self::Map(entries) | Self::Struct { fields: entries, .. } => {
                entries.iter().map(|(key, value)| key.len() + value.size()).sum::<usize>() + 1
            }
        }
    }

    /// One of its fields.
    pub(super) fn field(&self, name: &str) -> Result<&Self, String> {
        let unknown = || format!("can't evaluate field {name} in type {}", self.kind());
        match self {
            Self::Map(entries) => Ok(entries.get(name).unwrap_or(&Self::Missing)),
            Self::Struct { fields, .. } => fields.get(name).ok_or_else(unknown),
            Self::Missing => Err(format!("nil pointer evaluating interface {{}}.{name}")),
            _ => Err(unknown()),
        }
    }
}

/// As Go prints it with `%v`.
impl std::fmt::Display for Value {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => out.write_str(text),
            Self::Number(number) => write!(out, "{number}"),
            Self::Truth(truth) => write!(out, "{truth}"),
            Self::List(items) => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                write!(out, "[{}]", items.join(" "))
            }
            Self::Map(entries) | Self::Struct { fields: entries, .. } => {
                let entries: Vec<String> =
                    entries.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                write!(out, "map[{}]", entries.join(" "))
            }
            Self::Missing => out.write_str("<no value>"),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => to.serialize_str(text),
            Self::Number(number) => to.serialize_i64(*number),
            Self::Truth(truth) => to.serialize_bool(*truth),
            Self::List(items) => items.serialize(to),
            Self::Map(entries) | Self::Struct { fields: entries, .. } => entries.serialize(to),
            Self::Missing => to.serialize_unit(),
        }
    }
}
