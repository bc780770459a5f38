//! Sets, maps and verdict maps.

use crate::key::Key;
use crate::rule::Verdict;
use crate::value::Value;

/// A named set of values, or a map from them to values or verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub(crate) name: String,
    pub(crate) keys: Vec<Key>,
    pub(crate) kind: SetKind,
    pub(crate) elements: Vec<Element>,
    pub(crate) comment: Option<String>,
}

/// What a set has for each of its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetKind {
    /// Nothing.
    Set,
    /// Values of these kinds, such as an address and a port; a key stands for the type of its values.
    Map(Vec<Key>),
    /// What is to happen.
    Verdicts,
}

/// A value of a set or all values of a range, with what a map has for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    pub(crate) from: Value,
    /// The last one of a range.
    pub(crate) to: Option<Value>,
    pub(crate) datum: Option<Datum>,
}

/// What a map has for a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datum {
    /// In a [`SetKind::Map`].
    Value(Value),
    /// In a [`SetKind::Verdicts`].
    Verdict(Verdict),
}

impl Set {
    /// An empty set. Several keys make a set of their combinations.
    pub fn new(name: impl Into<String>, keys: impl Into<Vec<Key>>) -> Self {
        Self { name: name.into(), keys: keys.into(), kind: SetKind::Set, elements: Vec::new(), comment: None }
    }

    /// An empty map to values of `data`.
    pub fn map(name: impl Into<String>, keys: impl Into<Vec<Key>>, data: impl Into<Vec<Key>>) -> Self {
        Self { kind: SetKind::Map(data.into()), ..Self::new(name, keys) }
    }

    /// An empty map to verdicts.
    pub fn verdicts(name: impl Into<String>, keys: impl Into<Vec<Key>>) -> Self {
        Self { kind: SetKind::Verdicts, ..Self::new(name, keys) }
    }

    /// Adds a value; a net counts as all of its addresses. Values must not overlap.
    #[must_use]
    pub fn element(mut self, value: impl Into<Value>) -> Self {
        self.elements.push(Element { from: value.into(), to: None, datum: None });
        self
    }

    /// Adds all values between these, both included.
    #[must_use]
    pub fn range(mut self, from: impl Into<Value>, to: impl Into<Value>) -> Self {
        self.elements.push(Element { from: from.into(), to: Some(to.into()), datum: None });
        self
    }

    /// Adds a value with what a map has for it.
    #[must_use]
    pub fn entry(mut self, value: impl Into<Value>, datum: impl Into<Datum>) -> Self {
        self.elements.push(Element { from: value.into(), to: None, datum: Some(datum.into()) });
        self
    }

    /// Adds words for people.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Whether some element stands for more than one value.
    pub(crate) fn has_ranges(&self) -> bool {
        self.elements.iter().any(|element| element.to.is_some() || matches!(element.from, Value::Net(..)))
    }
}

impl From<Verdict> for Datum {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl From<Value> for Datum {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}
