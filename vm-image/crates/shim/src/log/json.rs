//! dockerd's `json-file` entries, byte for byte: `jsonfilelog/jsonlog`.

use std::collections::BTreeMap;
use std::io::Write;

use caisson_shim::proto::UnixNanos;

use super::Entry;
use crate::time::rfc3339;

/// Makes them.
#[derive(Debug)]
pub(super) struct Entries {
    /// `,"attrs":{…}`, the same in each; empty without attributes.
    attributes: Vec<u8>,
    /// A moment and its text: all lines of a chunk have one.
    written: (UnixNanos, String),
}

impl Entries {
    pub(super) fn new(attributes: &BTreeMap<String, String>) -> Self {
        Self { attributes: encode(attributes), written: (UnixNanos(0), rfc3339(UnixNanos(0))) }
    }

    pub(super) fn write(&mut self, entry: &Entry<'_>, into: &mut Vec<u8>) {
        if self.written.0 != entry.time {
            self.written = (entry.time, rfc3339(entry.time));
        }
        into.extend_from_slice(b"{\"log\":\"");
        escape(entry.text, into);
        if entry.ends {
            into.extend_from_slice(b"\\n");
        }
        into.extend_from_slice(b"\",\"stream\":\"");
        into.extend_from_slice(entry.stream.as_bytes());
        into.push(b'"');
        into.extend_from_slice(&self.attributes);
        into.extend_from_slice(b",\"time\":\"");
        into.extend_from_slice(self.written.1.as_bytes());
        into.extend_from_slice(b"\"}\n");
    }
}

fn encode(attributes: &BTreeMap<String, String>) -> Vec<u8> {
    let mut text = Vec::new();
    for (index, (key, value)) in attributes.iter().enumerate() {
        text.extend_from_slice(if index == 0 { b",\"attrs\":{" } else { b"," });
        for (word, after) in [(key, ":"), (value, "")] {
            text.push(b'"');
            escape(word.as_bytes(), &mut text);
            text.push(b'"');
            text.extend_from_slice(after.as_bytes());
        }
    }
    if !text.is_empty() {
        text.push(b'}');
    }
    text
}

/// What a byte of UTF-8 becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Itself.
    Plain,
    /// `\u00..`: controls, and what means something in HTML.
    Number,
    /// A backslash and itself.
    Backslash,
    /// `\n` and `\r`.
    Letter,
    /// Perhaps the first byte of U+2028 or U+2029.
    Separator,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Plain; 256];
    let mut byte = 0;
    while byte < 0x20 {
        classes[byte] = Class::Number;
        byte += 1;
    }
    classes[b'<' as usize] = Class::Number;
    classes[b'>' as usize] = Class::Number;
    classes[b'&' as usize] = Class::Number;
    classes[b'"' as usize] = Class::Backslash;
    classes[b'\\' as usize] = Class::Backslash;
    classes[b'\n' as usize] = Class::Letter;
    classes[b'\r' as usize] = Class::Letter;
    classes[0xe2] = Class::Separator;
    classes
};

/// As Go's JSON does for HTML's sake, with each byte that is not UTF-8 as U+FFFD.
fn escape(text: &[u8], into: &mut Vec<u8>) {
    // Most text is UTF-8, which is checked faster in one go.
    if let Ok(valid) = std::str::from_utf8(text) {
        return escape_valid(valid.as_bytes(), into);
    }
    for chunk in text.utf8_chunks() {
        escape_valid(chunk.valid().as_bytes(), into);
        for _ in chunk.invalid() {
            into.extend_from_slice(b"\\ufffd");
        }
    }
}

fn escape_valid(mut text: &[u8], into: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    while !text.is_empty() {
        let plain = text.iter().position(|byte| CLASSES[usize::from(*byte)] != Class::Plain);
        let (run, rest) = text.split_at(plain.unwrap_or(text.len()));
        into.extend_from_slice(run);
        let Some((&byte, after)) = rest.split_first() else { return };
        text = after;
        match CLASSES[usize::from(byte)] {
            Class::Plain => into.push(byte),
            Class::Number => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                into.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
            Class::Backslash => into.extend_from_slice(&[b'\\', byte]),
            Class::Letter => into.extend_from_slice(if byte == b'\n' { b"\\n" } else { b"\\r" }),
            Class::Separator => match after {
                [0x80, last @ (0xa8 | 0xa9), rest @ ..] => {
                    // Writing to memory does not fail.
                    let _ = write!(into, "\\u20{:02x}", last - 0x80);
                    text = rest;
                }
                _ => into.push(byte),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &[u8]) -> Entry<'_> {
        Entry { text, ends: true, stream: "stdout", time: UnixNanos(1_000_000_000), part: None }
    }

    fn written(entries: &mut Entries, text: &[u8]) -> String {
        let mut into = Vec::new();
        entries.write(&entry(text), &mut into);
        String::from_utf8(into).unwrap()
    }

    #[test]
    fn an_entry_is_a_line_of_json() {
        let mut plain = Entries::new(&BTreeMap::new());
        assert_eq!(
            written(&mut plain, b"hi"),
            "{\"log\":\"hi\\n\",\"stream\":\"stdout\",\"time\":\"1970-01-01T00:00:01Z\"}\n"
        );
        let attributes = [("b", "\"2\""), ("a", "<1>")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let mut attributed = Entries::new(&attributes.into());
        assert_eq!(
            written(&mut attributed, b""),
            "{\"log\":\"\\n\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"\\u003c1\\u003e\",\"b\":\"\\\"2\\\"\"},\"time\":\"1970-01-01T00:00:01Z\"}\n"
        );
    }

    #[test]
    fn bytes_are_escaped_as_dockerd_does() {
        let escaped = |text: &[u8]| {
            let mut into = Vec::new();
            escape(text, &mut into);
            String::from_utf8(into).unwrap()
        };
        let odd = b"\"\\\r\t\x1b<&>\xff\xe2\x82 \xe2\x82\xac \xe2\x80\xa8\xe2\x80\xa9\xe2\x80\xaa\n";
        let expected =
            "\\\"\\\\\\r\\u0009\\u001b\\u003c\\u0026\\u003e\\ufffd\\ufffd\\ufffd € \\u2028\\u2029\u{202a}\\n";
        assert_eq!(escaped(odd), expected);
        assert_eq!(escaped(&[0; 3]), "\\u0000\\u0000\\u0000");
        assert_eq!(escaped("plain é".as_bytes()), "plain é");
    }
}
