//! The `filters` of lists and events: `{"label":["a=b"],"status":{"running":true}}`.

use std::collections::BTreeMap;

use caisson_docker_api::time::Timestamp;
use regex::Regex;
use serde_json::Value;

use crate::error::ApiError;
use crate::moment;

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

    /// One more value of a filter.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.0.entry(name.to_owned()).or_default().push(value.to_owned());
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

    /// The filter's values as expressions.
    pub(crate) fn expressions(&self, name: &str) -> Expressions {
        Expressions(self.get(name).iter().map(|value| (value.clone(), Regex::new(value).ok())).collect())
    }

    /// Whether all of the label filter's wishes (`key` or `key=value`) are met.
    pub(crate) fn labels(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.get(name).iter().all(|wish| match wish.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
            None => labels.contains_key(wish),
        })
    }

    /// Whether a prune takes what has these labels: all of `label`'s wishes are met, and not all of `label!`'s.
    pub(crate) fn prunes(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels("label", labels) && !(self.has("label!") && self.labels("label!", labels))
    }

    /// The moment that `until` names, by which a prune spares what is newer: a duration before now, a date, or seconds since the epoch.
    pub(crate) fn until(&self) -> Result<Option<Timestamp>, ApiError> {
        match self.get("until") {
            [] => Ok(None),
            [one] => moment::parse(one, Timestamp::now()).map(Some),
            _ => Err(ApiError::invalid("more than one until filter specified")),
        }
    }

    /// What a filter says that says yes or no, and not both.
    pub(crate) fn bool(&self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(values) = self.0.get(name) else { return Ok(None) };
        let has = |words: [&str; 2]| values.iter().any(|value| words.contains(&value.as_str()));
        match (has(["1", "true"]), has(["0", "false"])) {
            (true, false) => Ok(Some(true)),
            (false, true) => Ok(Some(false)),
            _ if values.is_empty() => Err(ApiError::invalid(format!("invalid filter '{name}'"))),
            _ => Err(ApiError::invalid(format!("invalid filter '{name}=[{}]'", values.join(" ")))),
        }
    }
}

/// Values of a filter, each an expression. What is none matches what it says, and nothing else.
pub(crate) struct Expressions(Vec<(String, Option<Regex>)>);

impl Expressions {
    /// Whether one of them is this text, or is found in it; or there are none.
    pub(crate) fn are_met_by(&self, text: &str) -> bool {
        let matches = |(value, expression): &(String, Option<Regex>)| {
            value == text || expression.as_ref().is_some_and(|expression| expression.is_match(text))
        };
        self.0.is_empty() || self.0.iter().any(matches)
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
    fn a_prune_takes_what_is_labelled_and_spares_what_is_labelled_otherwise() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let taken = |json: &str| Filters::parse(json).unwrap().prunes(&labels);
        assert!(taken("{}") && taken(r#"{"label":["a=b"]}"#) && taken(r#"{"label!":["c"]}"#));
        assert!(!taken(r#"{"label":["c"]}"#) && !taken(r#"{"label!":["a"]}"#));
        let twice = Filters::parse(r#"{"until":["1h","2h"]}"#).unwrap();
        assert_eq!(twice.until().unwrap_err().message, "more than one until filter specified");
    }

    #[test]
    fn a_name_is_an_expression_that_is_found_in_it() {
        let found = |value: &str| {
            Filters::parse(&serde_json::json!({"name": [value]}).to_string())
                .unwrap()
                .expressions("name")
                .are_met_by("a-net")
        };
        for (value, is_found) in
            [("net", true), ("^net", false), ("^a-(x|net)$", true), ("(", false), ("b", false)]
        {
            assert_eq!(found(value), is_found, "{value}");
        }
        assert!(Filters::default().expressions("name").are_met_by("("));
    }

    #[test]
    fn all_labels_must_match() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())]);
        let met = |json: &str| Filters::parse(json).unwrap().labels("label", &labels);
        assert!(met("{}") && met(r#"{"label":["a=b","c"]}"#) && met(r#"{"label":["a"]}"#));
        assert!(!met(r#"{"label":["a=x"]}"#) && !met(r#"{"label":["a","d"]}"#));
    }
}
