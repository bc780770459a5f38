//! Decoding as Go's `encoding/json` does it.
//!
//! [`decode`] drives any `Deserialize` type with Go's leniency: keys match a field exactly or else in any case, unknown
//! keys are ignored (serde does that), `null` is the zero value wherever it stands. A value of the wrong kind is refused in
//! Go's words, with the path of the field, because that text is what users see
//! (as dockerd writes it for `POST /containers/create`, where the struct's own name is empty).
//!
//! Structs that are decoded this way say `#[serde(default)]` and do not use `flatten` (serde then forgets the field names).

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};
use serde_json::{Map, Value};

/// Decodes `value` as Go would.
pub fn decode<'de, T: de::Deserialize<'de>>(value: &'de Value) -> Result<T, DecodeError> {
    T::deserialize(Go(value))
}

/// The same for what Go reads as its struct `name`, which it names in its complaints.
pub fn decode_as<'de, T: de::Deserialize<'de>>(
    value: &'de Value,
    name: &'static str,
) -> Result<T, DecodeError> {
    T::deserialize(Go(value)).map_err(|error| DecodeError { root: name, ..error })
}

/// A value of the wrong kind, in the words of `json.UnmarshalTypeError`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// What is wrong, without the place.
    problem: Problem,
    /// The field's path from the outermost struct, innermost first while it is being built.
    path: Vec<String>,
    /// The outermost struct's name.
    root: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Problem {
    Kind { found: String, wanted: &'static str },
    Other(String),
}

impl DecodeError {
    fn kind(value: &Value, wanted: &'static str) -> Self {
        let found = match value {
            Value::Null => "null".into(),
            Value::Bool(_) => "bool".into(),
            Value::Number(n) if wanted.starts_with(['i', 'u', 'f']) => format!("number {n}"),
            Value::Number(_) => "number".into(),
            Value::String(_) => "string".into(),
            Value::Array(_) => "array".into(),
            Value::Object(_) => "object".into(),
        };
        Self { problem: Problem::Kind { found, wanted }, path: Vec::new(), root: "" }
    }

    fn within(mut self, field: &str) -> Self {
        self.path.push(field.to_owned());
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Other(text) => f.write_str(text),
            Problem::Kind { found, wanted } if self.path.is_empty() => {
                write!(f, "json: cannot unmarshal {found} into Go value of type {wanted}")
            }
            Problem::Kind { found, wanted } => {
                write!(f, "json: cannot unmarshal {found} into Go struct field {}", self.root)?;
                for field in self.path.iter().rev() {
                    write!(f, ".{field}")?;
                }
                write!(f, " of type {wanted}")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { problem: Problem::Other(text.to_string()), path: Vec::new(), root: "" }
    }
}

struct Go<'de>(&'de Value);

impl<'de> IntoDeserializer<'de, DecodeError> for Go<'de> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty, $name:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            let fits = match self.0 {
                Value::Null => Some(0),
                Value::Number(n) => n
                    .as_i64()
                    .and_then(|n| <$type>::try_from(n).ok())
                    .or_else(|| n.as_u64().and_then(|n| <$type>::try_from(n).ok())),
                _ => None,
            };
            visitor.$visit(fits.ok_or_else(|| DecodeError::kind(self.0, $name))?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Go<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(n), ..) => visitor.visit_i64(n),
                (_, Some(n), _) => visitor.visit_u64(n),
                (_, _, n) => visitor.visit_f64(n.unwrap_or_default()),
            },
            Value::String(s) => visitor.visit_borrowed_str(s),
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Object(map) => visitor.visit_map(Fields::all(map)),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_bool(false),
            Value::Bool(b) => visitor.visit_bool(*b),
            other => Err(DecodeError::kind(other, "bool")),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8, "int8";
        deserialize_i16 visit_i16 i16, "int16";
        deserialize_i32 visit_i32 i32, "int";
        deserialize_i64 visit_i64 i64, "int64";
        deserialize_u8 visit_u8 u8, "uint8";
        deserialize_u16 visit_u16 u16, "uint16";
        deserialize_u32 visit_u32 u32, "uint";
        deserialize_u64 visit_u64 u64, "uint64";
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_f64(0.0),
            Value::Number(n) => visitor.visit_f64(n.as_f64().unwrap_or_default()),
            other => Err(DecodeError::kind(other, "float64")),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_borrowed_str(""),
            Value::String(s) => visitor.visit_borrowed_str(s),
            other => Err(DecodeError::kind(other, "string")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_seq(Items([].iter())),
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            other => Err(DecodeError::kind(other, "[]string")),
        }
    }

    /// Go fills the rest of a fixed array with zeros and drops what is too much.
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_seq(Padded { items: &[], at: 0, len }),
            Value::Array(items) => visitor.visit_seq(Padded { items, at: 0, len }),
            other => Err(DecodeError::kind(other, "[2]uint")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_map(Fields { entries: Vec::new(), in_struct: false, value: None }),
            Value::Object(map) => visitor.visit_map(Fields::all(map)),
            other => Err(DecodeError::kind(other, "map[string]string")),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.0 {
            Value::Null => visitor.visit_map(Fields { entries: Vec::new(), in_struct: false, value: None }),
            Value::Object(map) => visitor.visit_map(Fields::of_struct(fields, map)),
            other => Err(DecodeError::kind(other, name)),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct enum identifier ignored_any
    }
}

const NULL: Value = Value::Null;

struct Padded<'de> {
    items: &'de [Value],
    at: usize,
    len: usize,
}

impl<'de> de::SeqAccess<'de> for Padded<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        if self.at == self.len {
            return Ok(None);
        }
        let item = self.items.get(self.at).unwrap_or(&NULL);
        self.at += 1;
        seed.deserialize(Go(item)).map(Some)
    }
}

struct Items<'de>(std::slice::Iter<'de, Value>);

impl<'de> de::SeqAccess<'de> for Items<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        self.0.next().map(|item| seed.deserialize(Go(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Fields<'de> {
    /// What is left to hand out, last first.
    entries: Vec<(&'de str, &'de Value)>,
    in_struct: bool,
    value: Option<(&'de str, &'de Value)>,
}

impl<'de> Fields<'de> {
    fn all(map: &'de Map<String, Value>) -> Self {
        Self {
            entries: map.iter().rev().map(|(k, v)| (k.as_str(), v)).collect(),
            in_struct: false,
            value: None,
        }
    }

    /// The entries that are fields of the struct, by their own names; `null` means "not said".
    fn of_struct(fields: &'static [&'static str], map: &'de Map<String, Value>) -> Self {
        let mut entries: Vec<(&'de str, &'de Value)> = Vec::with_capacity(map.len());
        for (key, value) in map.iter().filter(|(_, value)| !value.is_null()) {
            let exact = fields.iter().find(|field| *field == key);
            let Some(field) = exact.or_else(|| fields.iter().find(|f| f.eq_ignore_ascii_case(key))) else {
                continue;
            };
            match entries.iter_mut().find(|(known, _)| known == field) {
                Some(entry) if exact.is_some() => entry.1 = value,
                Some(_) => {}
                None => entries.push((field, value)),
            }
        }
        Self { entries, in_struct: true, value: None }
    }
}

impl<'de> de::MapAccess<'de> for Fields<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some((key, value)) = self.entries.pop() else { return Ok(None) };
        self.value = Some((key, value));
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        let (key, value) = self.value.take().expect("serde asks for a value only after its key");
        seed.deserialize(Go(value)).map_err(|e| if self.in_struct { e.within(key) } else { e })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Inner {
        memory: i64,
        pair: [u32; 2],
        names: Option<Vec<String>>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Outer {
        tty: bool,
        image: String,
        inner: Inner,
        labels: std::collections::BTreeMap<String, String>,
    }

    #[test]
    fn keys_match_in_any_case_and_null_is_the_zero_value() {
        let value = json!({
            "tTy": true, "IMAGE": null, "unknown": 5,
            "inner": {"memory": 7, "pair": [1], "Names": null},
            "Labels": {"a": null, "B": "c"},
        });
        let outer: Outer = decode(&value).unwrap();
        assert!(outer.tty);
        assert_eq!(outer.image, "");
        assert_eq!(outer.inner, Inner { memory: 7, pair: [1, 0], names: None });
        assert_eq!(outer.labels["a"], "");
        assert_eq!(outer.labels["B"], "c");
    }

    #[test]
    fn an_exact_key_wins_over_one_in_another_case() {
        let value = json!({"image": "wrong", "Image": "right", "iMAGE": "wrong too"});
        assert_eq!(decode::<Outer>(&value).unwrap().image, "right");
    }

    #[test]
    fn an_empty_list_is_not_null() {
        assert_eq!(decode::<Inner>(&json!({"Names": []})).unwrap().names, Some(vec![]));
        assert_eq!(decode::<Inner>(&json!({})).unwrap().names, None);
    }

    #[test]
    fn a_wrong_kind_is_refused_in_go_s_words() {
        let cases = [
            (
                json!({"Inner": {"Memory": "x"}}),
                "json: cannot unmarshal string into Go struct field .Inner.Memory of type int64",
            ),
            (json!({"Tty": 1}), "json: cannot unmarshal number into Go struct field .Tty of type bool"),
            (
                json!({"Inner": {"Memory": 1.5}}),
                "json: cannot unmarshal number 1.5 into Go struct field .Inner.Memory of type int64",
            ),
            (json!([]), "json: cannot unmarshal array into Go value of type Outer"),
        ];
        for (value, message) in cases {
            assert_eq!(decode::<Outer>(&value).unwrap_err().to_string(), message);
        }
    }
}
