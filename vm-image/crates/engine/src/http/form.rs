//! Query strings as Go's `net/url` and moby's `httputils` read them.

use crate::error::ApiError;

/// The parameters of a query string, in their order; a name may occur more than once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `a=b&c=d`; a bad escape or a `;` is refused in Go's words.
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            if pair.contains(';') {
                return Err(ApiError::invalid("invalid semicolon separator in query"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((unescape(name, true)?, unescape(value, true)?));
        }
        Ok(Self(pairs))
    }

    /// The first value of a name; empty if there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.as_str())
    }

    /// Every value of a name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect()
    }

    /// Whether the name occurs at all.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// moby's `BoolValue`: anything but a few words for "no" is yes.
    pub(crate) fn bool(&self, name: &str) -> bool {
        !matches!(self.get(name).trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
    }

    /// Like [`Form::bool`], with a default for a name that does not occur.
    pub(crate) fn bool_or(&self, name: &str, default: bool) -> bool {
        if self.has(name) { self.bool(name) } else { default }
    }

    /// The lines `h` and columns `w` of a terminal.
    pub(crate) fn terminal_size(&self) -> Result<(u16, u16), ApiError> {
        let size = |name: &str, what: &str| {
            let text = self.get(name);
            let bad = |why: &str| ApiError::invalid(format!("invalid resize {what} {text:?}: {why}"));
            match text.parse::<u32>() {
                Ok(number) => u16::try_from(number).map_err(|_| bad("value out of range")),
                Err(_) => Err(bad("invalid syntax")),
            }
        };
        Ok((size("h", "height")?, size("w", "width")?))
    }

    /// A number, if the name has a value.
    pub(crate) fn int(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| bad_integer(text)),
        }
    }
}

/// A status 500 for a client's mistake: so does dockerd, which has not classified the errors of `strconv`.
fn bad_integer(text: &str) -> ApiError {
    ApiError::internal(format!("strconv.Atoi: parsing {text:?}: invalid syntax"))
}

/// Undoes percent-escapes (and `+`, in a query).
pub(crate) fn unescape(text: &str, plus: bool) -> Result<String, ApiError> {
    if !text.contains(['%', '+']) {
        return Ok(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let digits = after.get(..2).and_then(|d| std::str::from_utf8(d).ok());
                let value = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
                bytes.push(value.ok_or_else(|| bad_escape(after))?);
                rest = &after[2..];
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn bad_escape(after: &[u8]) -> ApiError {
    let shown = String::from_utf8_lossy(&after[..after.len().min(2)]).into_owned();
    ApiError::invalid(format!("invalid URL escape {:?}", format!("%{shown}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_reads_as_in_go() {
        let form = Form::parse("a=1&b=x%20y+z&a=2&c&filters=%7B%22s%22%3A1%7D").unwrap();
        assert_eq!(form.get("a"), "1");
        assert_eq!(form.all("a"), ["1", "2"]);
        assert_eq!(form.get("b"), "x y z");
        assert!(form.has("c") && !form.has("d"));
        assert_eq!(form.get("filters"), r#"{"s":1}"#);
    }

    #[test]
    fn only_some_words_mean_no() {
        for (value, expected) in [
            ("1", true),
            ("True", true),
            ("x", true),
            ("0", false),
            ("FALSE", false),
            ("no", false),
            ("", false),
        ] {
            assert_eq!(Form::parse(&format!("v={value}")).unwrap().bool("v"), expected, "{value:?}");
        }
        assert!(Form::parse("").unwrap().bool_or("v", true));
        assert!(!Form::parse("v=").unwrap().bool_or("v", true));
    }

    #[test]
    fn bad_escapes_and_numbers_are_named() {
        assert_eq!(Form::parse("a=%zz").unwrap_err().message, r#"invalid URL escape "%zz""#);
        let form = Form::parse("h=ten").unwrap();
        assert_eq!(form.int("h").unwrap_err().message, r#"strconv.Atoi: parsing "ten": invalid syntax"#);
    }
}
