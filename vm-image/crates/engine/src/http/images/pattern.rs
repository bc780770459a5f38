//! Go's `path.Match`, by which the `reference` filter chooses names: `*` and `?` stop at a slash, `[a-z]` and `[^a-z]` are
//! one letter, a backslash takes a letter as it is.

/// A pattern that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub(super) struct BadPattern;

/// Whether a pattern fits a whole text.
pub(super) fn matches(pattern: &str, text: &str) -> Result<bool, BadPattern> {
    let pattern = parse(pattern)?;
    let text: Vec<char> = text.chars().collect();
    Ok(fits(&pattern, &text))
}

enum Part {
    /// Any letters but slashes.
    Many,
    /// Any letter but a slash.
    Any,
    One(char),
    /// A letter in one of these ranges, or in none of them.
    Class {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
}

fn parse(pattern: &str) -> Result<Vec<Part>, BadPattern> {
    let mut letters = pattern.chars().peekable();
    let mut parts = Vec::new();
    while let Some(letter) = letters.next() {
        parts.push(match letter {
            '*' => Part::Many,
            '?' => Part::Any,
            '\\' => Part::One(letters.next().ok_or(BadPattern)?),
            '[' => class(&mut letters)?,
            other => Part::One(other),
        });
    }
    Ok(parts)
}

fn class(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Part, BadPattern> {
    let negated = letters.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && letters.next_if_eq(&']').is_some() {
            return Ok(Part::Class { ranges, negated });
        }
        let low = end_of_range(letters)?;
        let high = if letters.next_if_eq(&'-').is_some() { end_of_range(letters)? } else { low };
        ranges.push((low, high));
    }
}

fn end_of_range(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, BadPattern> {
    match letters.next().ok_or(BadPattern)? {
        '-' | ']' => Err(BadPattern),
        '\\' => letters.next().ok_or(BadPattern),
        letter => Ok(letter),
    }
}

/// Star by star, as Go does: what stands between two stars is taken where it fits first, and no star before is tried again, so
/// that the work is at most the product of both lengths.
fn fits(pattern: &[Part], text: &[char]) -> bool {
    let mut chunks = pattern.split(|part| matches!(part, Part::Many)).peekable();
    let Some(mut rest) = chunks.next().and_then(|first| after(first, text)) else { return false };
    while let Some(chunk) = chunks.next() {
        // The last one reaches to the end of the text.
        let is_last = chunks.peek().is_none();
        let slash = rest.iter().position(|letter| *letter == '/').unwrap_or(rest.len());
        let found = (0..=slash)
            .filter_map(|skipped| after(chunk, &rest[skipped..]))
            .find(|left| !is_last || left.is_empty());
        let Some(left) = found else { return false };
        rest = left;
    }
    rest.is_empty()
}

/// What is left of a text that begins with what these parts, among which is no star, say.
fn after<'a>(chunk: &[Part], text: &'a [char]) -> Option<&'a [char]> {
    let (begin, rest) = text.split_at_checked(chunk.len())?;
    chunk.iter().zip(begin).all(|(part, letter)| part.is(*letter)).then_some(rest)
}

impl Part {
    /// Whether this one letter is meant.
    fn is(&self, letter: char) -> bool {
        match self {
            Self::Many => false,
            Self::Any => letter != '/',
            Self::One(wanted) => *wanted == letter,
            Self::Class { ranges, negated } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&letter)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_go() {
        for (pattern, text, expected) in [
            ("busy*", "busybox", true),
            ("busybox:*", "busybox:latest", true),
            ("*", "me/app", false),
            ("me/*", "me/app", true),
            ("*/*", "me/app", true),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("abc", "abcd", false),
            ("a[b-d]", "ac", true),
            ("a[^b-d]", "ac", false),
            ("a[^b-d]", "ax", true),
            ("a\\*", "a*", true),
            ("a\\*", "ab", false),
            ("", "", true),
            ("*", "", true),
            ("*", "a/", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("a*b", "ab-b", true),
            ("*/a*b", "me/a/b", false),
            ("*a/*", "ba/c", true),
            ("a[^x]c", "a/c", true),
        ] {
            assert_eq!(matches(pattern, text), Ok(expected), "{pattern} {text}");
        }
        for pattern in ["[", "[a", "[]a]", "[a-]", "a\\", "[-x]"] {
            assert_eq!(matches(pattern, "a"), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn many_stars_cost_little() {
        let text = "a".repeat(200);
        assert_eq!(matches(&"*".repeat(200), &text), Ok(true));
        assert_eq!(matches(&format!("{}b", "*".repeat(200)), &text), Ok(false));
        assert_eq!(matches(&format!("{}b", "*a".repeat(100)), &text), Ok(false));
    }
}
