//! Lines, words and variables of a Dockerfile.

use super::ChangeError;

/// How many `${…}` may stand in one another. Each takes stack, and an overflow would end the engine.
const DEPTH_MAX: u32 = 64;

/// The instructions of a text: comments and empty lines left out, lines that end in a backslash joined.
pub(super) fn lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.trim_end().strip_suffix('\\') {
            Some(begun) => current.push_str(begun),
            None => {
                current.push_str(line);
                lines.push(std::mem::take(&mut current));
            }
        }
    }
    lines.push(current);
    let trimmed = lines.iter().map(|line| line.trim().to_owned());
    trimmed.filter(|line| !line.is_empty()).collect()
}

/// The first word of a line, and the rest.
pub(super) fn first(line: &str) -> (&str, &str) {
    match line.trim().split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim()),
        None => (line.trim(), ""),
    }
}

/// A JSON array of strings, if that is what it is.
pub(super) fn json(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

/// `name=value …`, or in the old way `name value`, both still to be expanded.
pub(super) fn pairs(instruction: &'static str, rest: &str) -> Result<Vec<(String, String)>, ChangeError> {
    let words: Vec<&str> = Words(rest).collect();
    let first_word = words.first().ok_or(ChangeError::AtLeastOne(instruction))?;
    if !first_word.contains('=') {
        return match first(rest) {
            (_, "") => Err(ChangeError::TwoArguments(instruction)),
            (name, value) => Ok(vec![(name.to_owned(), value.to_owned())]),
        };
    }
    let pair = |word: &&str| match word.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(ChangeError::NoEquals((*word).to_owned())),
    };
    words.iter().map(pair).collect()
}

/// Words of a line: white space parts them, but not within quotes or after a backslash, which stay in them.
pub(super) struct Words<'a>(pub(super) &'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let line = self.0.trim_start();
        let mut quote = None;
        let mut letters = line.char_indices();
        while let Some((at, letter)) = letters.next() {
            match (quote, letter) {
                (None, letter) if letter.is_whitespace() => {
                    self.0 = &line[at..];
                    return Some(&line[..at]);
                }
                (None, '"' | '\'') => quote = Some(letter),
                (Some(open), letter) if open == letter => quote = None,
                (None | Some('"'), '\\') => drop(letters.next()),
                _ => {}
            }
        }
        self.0 = "";
        Some(line).filter(|line| !line.is_empty())
    }
}

/// Variables, `NAME=value`.
pub(super) struct Environment<'a>(pub(super) &'a [String]);

impl Environment<'_> {
    /// Takes the quotes from a word, and puts values in the place of variables.
    pub(super) fn expand(&self, word: &str) -> Result<String, ChangeError> {
        let mut expansion = Expansion { environment: self, word, rest: word.chars().peekable(), depth: 0 };
        expansion.until(None)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find_map(|entry| entry.split_once('=').filter(|(other, _)| *other == name))
            .map(|(_, value)| value)
    }
}

struct Expansion<'a> {
    environment: &'a Environment<'a>,
    word: &'a str,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    /// How many `${` are open.
    depth: u32,
}

impl Expansion<'_> {
    fn error(&self, why: impl Into<String>) -> ChangeError {
        ChangeError::Expansion { word: self.word.to_owned(), why: why.into() }
    }

    fn until(&mut self, end: Option<char>) -> Result<String, ChangeError> {
        let mut text = String::new();
        while let Some(letter) = self.rest.next() {
            match letter {
                letter if Some(letter) == end => return Ok(text),
                '\'' => self.single_quoted(&mut text)?,
                '"' => self.double_quoted(&mut text)?,
                '$' => text.push_str(&self.variable()?),
                '\\' => text.push(self.rest.next().unwrap_or('\\')),
                letter => text.push(letter),
            }
        }
        match end {
            None => Ok(text),
            Some(_) => Err(self.error("unexpected end of statement while looking for matching brace")),
        }
    }

    fn single_quoted(&mut self, text: &mut String) -> Result<(), ChangeError> {
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(()),
                Some(letter) => text.push(letter),
                None => {
                    return Err(
                        self.error("unexpected end of statement while looking for matching single-quote")
                    );
                }
            }
        }
    }

    fn double_quoted(&mut self, text: &mut String) -> Result<(), ChangeError> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') => text.push_str(&self.variable()?),
                // Within quotes a backslash protects only what would mean something.
                Some('\\') => match self.rest.next_if(|letter| matches!(letter, '"' | '$' | '\\')) {
                    Some(letter) => text.push(letter),
                    None => text.push('\\'),
                },
                Some(letter) => text.push(letter),
                None => {
                    return Err(
                        self.error("unexpected end of statement while looking for matching double-quote")
                    );
                }
            }
        }
    }

    /// What stands after a dollar sign.
    fn variable(&mut self) -> Result<String, ChangeError> {
        if self.rest.next_if_eq(&'{').is_some() {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(self.error("variables are nested too deeply"));
            }
            let value = self.braced()?;
            self.depth -= 1;
            return Ok(value);
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(self.environment.get(&name).unwrap_or_default().to_owned())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(letter) = self.rest.next_if(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
        {
            name.push(letter);
        }
        name
    }

    /// `{name}`, `{name:-default}`, `{name:+other}`, `{name:?error}`, and these without the colon.
    fn braced(&mut self) -> Result<String, ChangeError> {
        let name = self.name();
        let value = self.environment.get(&name).map(str::to_owned);
        let colon = self.rest.next_if_eq(&':').is_some();
        let is_set = value.as_ref().is_some_and(|value| !colon || !value.is_empty());
        match self.rest.next() {
            _ if name.is_empty() => Err(self.error("bad substitution")),
            Some('}') if !colon => Ok(value.unwrap_or_default()),
            Some('-') => {
                let other = self.until(Some('}'))?;
                Ok(value.filter(|_| is_set).unwrap_or(other))
            }
            Some('+') => {
                let other = self.until(Some('}'))?;
                Ok(if is_set { other } else { String::new() })
            }
            Some('?') => {
                let told = self.until(Some('}'))?;
                let why = if told.is_empty() { "is not allowed to be unset" } else { &told };
                value.filter(|_| is_set).ok_or_else(|| self.error(format!("{name}: {why}")))
            }
            _ => Err(self.error("unsupported modifier in substitution")),
        }
    }
}
