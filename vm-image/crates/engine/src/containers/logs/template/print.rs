//! Go's `fmt`, as far as lines of text need it.

use super::value::Value;

/// As `fmt.Sprint`: a space between two values of which neither is a text.
pub(super) fn print(values: &[Value]) -> String {
    let mut text = String::new();
    let mut before: Option<&Value> = None;
    for value in values {
        if before.is_some_and(|before| !is_text(before) && !is_text(value)) {
            text.push(' ');
        }
        text.push_str(&value.to_string());
        before = Some(value);
    }
    text
}

/// As `fmt.Sprintln`.
pub(super) fn println(values: &[Value]) -> String {
    let all: Vec<String> = values.iter().map(ToString::to_string).collect();
    format!("{}\n", all.join(" "))
}

fn is_text(value: &Value) -> bool {
    matches!(value, Value::Text(_))
}

/// One `%…` of a format.
#[derive(Debug, Default)]
struct Verb {
    left: bool,
    zeros: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

/// How wide a value may be made.
const WIDEST: usize = 1 << 12;

/// As `fmt.Sprintf`, with the verbs s, q, v, d, x, X, t, and flags, width and precision.
pub(super) fn format(format: &str, values: &[Value]) -> Result<String, String> {
    let mut text = String::new();
    let mut values = values.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = letters.next_if(|flag| "-0+ #".contains(*flag)) {
            verb.left |= flag == '-';
            verb.zeros |= flag == '0';
            verb.plus |= flag == '+';
        }
        verb.width = digits(&mut letters)?.unwrap_or(0);
        if letters.next_if_eq(&'.').is_some() {
            verb.precision = Some(digits(&mut letters)?.unwrap_or(0));
        }
        match letters.next() {
            None => text.push_str("%!(NOVERB)"),
            Some('%') => text.push('%'),
            Some(letter) => match values.next() {
                Some(value) => text.push_str(&verb.show(letter, value)),
                None => text.push_str(&format!("%!{letter}(MISSING)")),
            },
        }
    }
    let extra: Vec<String> = values.map(|value| format!("{}={value}", value.kind())).collect();
    if !extra.is_empty() {
        text.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    Ok(text)
}

fn digits(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, String> {
    let mut number = None;
    while let Some(digit) = letters.peek().and_then(|letter| letter.to_digit(10)) {
        letters.next();
        let grown = number.unwrap_or(0_usize) * 10 + digit as usize;
        if grown > WIDEST {
            return Err(format!("a width over {WIDEST}"));
        }
        number = Some(grown);
    }
    Ok(number)
}

impl Verb {
    fn show(&self, letter: char, value: &Value) -> String {
        let text = match (letter, value) {
            ('d' | 'v', Value::Number(number)) if self.plus => format!("{number:+}"),
            ('d' | 'v', Value::Number(number)) => number.to_string(),
            ('x', Value::Number(number)) => format!("{number:x}"),
            ('X', Value::Number(number)) => format!("{number:X}"),
            ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('X', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
            ('q', Value::Text(text)) => serde_json::to_string(text).unwrap_or_default(),
            ('s', Value::Number(_) | Value::Truth(_)) | ('d' | 't', Value::Text(_)) => {
                format!("%!{letter}({}={value})", value.kind())
            }
            ('s' | 'v', value) => value.to_string(),
            ('t', Value::Truth(truth)) => truth.to_string(),
            (letter, value) => format!("%!{letter}({}={value})", value.kind()),
        };
        let text = match (self.precision, value) {
            (Some(most), Value::Text(_)) => text.chars().take(most).collect(),
            _ => text,
        };
        self.fill(text, matches!(value, Value::Number(_)))
    }

    fn fill(&self, text: String, is_number: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        match (self.left, self.zeros && is_number) {
            (true, _) => text + &" ".repeat(missing),
            (false, true) => match text.strip_prefix('-') {
                Some(digits) => format!("-{}{digits}", "0".repeat(missing)),
                None => "0".repeat(missing) + &text,
            },
            (false, false) => " ".repeat(missing) + &text,
        }
    }
}
