//! The `filters` of lists and events: `{"label":["a=b"],"status":{"running":true}}`.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::ApiError;

/// Values by filter. Values of one filter are alternatives (labels are not), filters are all to be met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads the query's text; an empty one is no filters. Old clients send maps of booleans, newer ones lists.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::invalid("invalid filter");
        if text.is_empty() {
            return Ok(Self::default());
        }
        let Ok(Value::Object(entries)) = serde_json::from_str(text) else { return Err(invalid()) };
        let mut filters = BTreeMap::new();
        for (name, values) in entries {
            let values: Vec<String> = match values {
                Value::Object(set) => {
                    set.into_iter().filter(|(_, on)| on == &Value::Bool(true)).map(|(v, _)| v).collect()
                }
                Value::Array(list) => {
                    let text = |value: &Value| value.as_str().map(str::to_owned);
                    list.iter().map(text).collect::<Option<_>>().ok_or_else(invalid)?
                }
                Value::Null => Vec::new(),
                _ => return Err(invalid()),
            };
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    /// Refuses filters that are none of these.
    pub(crate) fn only(self, known: &[&str]) -> Result<Self, ApiError> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(ApiError::invalid(format!("invalid filter '{name}'"))),
            None => Ok(self),
        }
    }

    /// The values of a filter.
    pub(crate) fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// Whether one of the filter's values is met, or there are none.
    pub(crate) fn any(&self, name: &str, met: impl Fn(&str) -> bool) -> bool {
        !self.has(name) || self.get(name).iter().any(|value| met(value))
    }

    /// Whether all of the label filter's wishes (`key` or `key=value`) are met.
    pub(crate) fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(name).iter().all(|wish| match wish.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(wish),
        })
    }

    /// The one value of a filter that says yes or no.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.get(name).first() else { return Ok(None) };
        match value.to_ascii_lowercase().as_str() {
            "1" | "true" => Ok(Some(true)),
            "0" | "false" => Ok(Some(false)),
            _ => Err(ApiError::invalid(format!("invalid filter '{name}=[{value}]'"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let filters = Filters::parse(r#"{"status":["running"],"label":{"a=b":true,"c":false}}"#).unwrap();
        assert_eq!(
            (filters.get("status"), filters.get("label")),
            (&["running".to_owned()][..], &["a=b".to_owned()][..])
        );
        assert_eq!(Filters::parse("x").unwrap_err().message, "invalid filter");
        assert_eq!(filters.only(&["status"]).unwrap_err().message, "invalid filter 'label'");
    }

    #[test]
    fn all_labels_must_match() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]);
        let met = |json: &str| Filters::parse(json).unwrap().labels("label", &labels);
        assert!(met("{}") && met(r#"{"label":["a=b","c"]}"#) && met(r#"{"label":["a"]}"#));
        assert!(!met(r#"{"label":["a=x"]}"#) && !met(r#"{"label":["a","d"]}"#));
    }
}
