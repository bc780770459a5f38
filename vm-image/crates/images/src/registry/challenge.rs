//! `WWW-Authenticate` (RFC 9110, section 11.6.1), as registries write it.

use std::collections::BTreeMap;

/// How a registry wants to know who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and password with every request.
    Basic,
    /// A token of another server.
    Bearer {
        /// Who gives tokens.
        realm: String,
        /// For whom the token is to be.
        service: Option<String>,
        /// What it is to allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The challenge of these headers that can be met: a token rather than a password.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut challenges: Vec<Self> = headers.filter_map(Self::parse).collect();
        challenges.sort_by_key(|challenge| matches!(challenge, Self::Basic));
        challenges.into_iter().next()
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut values = parameters(rest);
        let realm = values.remove("realm")?;
        Some(Self::Bearer { realm, service: values.remove("service"), scope: values.remove("scope") })
    }
}

/// `a="b, \"c\"",d=e`: values may be quoted, with backslashes.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    let mut letters = text.chars().peekable();
    loop {
        while letters.next_if(|letter| *letter == ',' || letter.is_whitespace()).is_some() {}
        let mut name = String::new();
        while let Some(letter) = letters.next_if(|letter| *letter != '=' && *letter != ',') {
            name.push(letter);
        }
        if letters.next_if_eq(&'=').is_none() {
            return values;
        }
        let mut value = String::new();
        if letters.next_if_eq(&'"').is_some() {
            while let Some(letter) = letters.next().filter(|letter| *letter != '"') {
                value.extend(if letter == '\\' { letters.next() } else { Some(letter) });
            }
        } else {
            while let Some(letter) = letters.next_if(|letter| *letter != ',') {
                value.push(letter);
            }
        }
        values.insert(name.trim().to_ascii_lowercase(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_before_a_password() {
        let bearer = r#"Bearer realm="https://auth/token?a,b",service=reg,Scope="repository:a/b:pull,push",error="x\"y""#;
        let expected = Challenge::Bearer {
            realm: "https://auth/token?a,b".into(),
            service: Some("reg".into()),
            scope: Some("repository:a/b:pull,push".into()),
        };
        assert_eq!(Challenge::choose(["Basic realm=\"x\"", bearer].into_iter()), Some(expected));
        assert_eq!(Challenge::choose(["basic realm=\"x\""].into_iter()), Some(Challenge::Basic));
        assert_eq!(Challenge::choose(["Negotiate", "Bearer service=x"].into_iter()), None);
    }
}
