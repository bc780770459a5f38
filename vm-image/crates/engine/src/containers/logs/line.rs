//! One line of a `json-file`, and how clients are told of it.

use std::collections::BTreeMap;

use caisson_docker_api::time::Timestamp;
use serde::Deserialize;

use super::LogOptions;

/// One line, or the part of a long one that the shim took at a time.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    pub(super) is_stderr: bool,
    pub(super) time: Timestamp,
    /// What the log's options let every line carry.
    pub(super) attributes: Vec<(String, String)>,
}

impl Line {
    /// Reads one; `None` for what a crash has torn.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Entry {
            #[serde(default)]
            log: String,
            #[serde(default)]
            stream: String,
            #[serde(default)]
            attrs: BTreeMap<String, String>,
            time: Timestamp,
        }
        let entry: Entry = serde_json::from_slice(json).ok()?;
        Some(Self {
            text: entry.log.into_bytes(),
            is_stderr: entry.stream == "stderr",
            time: entry.time,
            attributes: entry.attrs.into_iter().collect(),
        })
    }

    /// Appends it as asked for: with Docker's stream header unless `raw`.
    pub(super) fn write(&self, out: &mut Vec<u8>, options: &LogOptions, raw: bool) {
        let start = out.len();
        if !raw {
            out.extend_from_slice(&[if self.is_stderr { 2 } else { 1 }, 0, 0, 0, 0, 0, 0, 0]);
        }
        let body = out.len();
        if options.timestamps {
            out.extend_from_slice(self.time.fixed().as_bytes());
            out.push(b' ');
        }
        if options.details {
            out.extend_from_slice(self.details().as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(&self.text);
        if !raw {
            let length = u32::try_from(out.len() - body).expect("a line of a log is at most a few KiB");
            out[start + 4..start + 8].copy_from_slice(&length.to_be_bytes());
        }
    }

    /// The attributes as a query's text, in the order of their keys.
    fn details(&self) -> String {
        let mut all: Vec<String> = self
            .attributes
            .iter()
            .map(|(key, value)| format!("{}={}", escaped(key), escaped(value)))
            .collect();
        all.sort_unstable();
        all.join(",")
    }
}

/// Go's `url.QueryEscape`.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &[u8] = br#"{"log":"hi\n","stream":"stderr","time":"2026-01-01T00:00:01.5Z"}"#;

    fn written(timestamps: bool, details: bool, raw: bool) -> Vec<u8> {
        let options = LogOptions {
            stdout: true,
            stderr: true,
            follow: false,
            timestamps,
            details,
            since: None,
            until: None,
            tail: None,
        };
        let mut out = Vec::new();
        Line::parse(JSON).unwrap().write(&mut out, &options, raw);
        out
    }

    #[test]
    fn a_line_is_told_with_what_was_asked_for() {
        assert_eq!(written(false, false, true), b"hi\n");
        assert_eq!(written(false, false, false), b"\x02\0\0\0\0\0\0\x03hi\n");
        assert_eq!(written(true, true, true), b"2026-01-01T00:00:01.500000000Z  hi\n");
    }

    #[test]
    fn details_are_what_the_options_let_it_carry() {
        let json = br#"{"log":"hi\n","stream":"stdout","attrs":{"z":"1","a b":"x/y"},"time":"2026-01-01T00:00:01Z"}"#;
        assert_eq!(Line::parse(json).unwrap().details(), "a+b=x%2Fy,z=1");
    }

    #[test]
    fn a_torn_line_is_none() {
        assert_eq!(Line::parse(&JSON[..20]), None);
    }
}
