//! What a log's bytes mean: where entries begin and end, and what is in one. The shim writes them: see its `log` module.

use std::io::{self, Read, Seek, SeekFrom};

use caisson_docker_api::time::Timestamp;
use caisson_shim::LogFormat;

use super::line::Line;

/// What the shim makes of an entry that was cut short.
#[cfg(test)]
#[path = "../../../../shim/src/log/torn/message.rs"]
mod torn;

const BLOCK: u64 = 64 * 1024;

/// Longer than any entry: a length that says more is not one.
const LONGEST: usize = 1 << 20;

/// How many of these bytes are whole entries.
pub(super) fn whole(format: LogFormat, bytes: &[u8]) -> usize {
    match format {
        LogFormat::Json => bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1),
        LogFormat::Local => {
            let mut at = 0;
            while let Some(length) =
                message_length(&bytes[at..]).filter(|length| bytes.len() - at >= length + 8)
            {
                at += length + 8;
            }
            at
        }
    }
}

/// The first entry, as it is, and what comes after it. `bytes` are whole entries.
pub(super) fn first(format: LogFormat, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if bytes.is_empty() {
        return None;
    }
    match format {
        LogFormat::Json => {
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
            Some(bytes.split_at(end))
        }
        LogFormat::Local => {
            let length = message_length(bytes)?;
            Some((bytes.get(4..4 + length)?, bytes.get(length + 8..)?))
        }
    }
}

/// Reads an entry; `None` for what a crash has torn.
pub(super) fn parse(format: LogFormat, entry: &[u8]) -> Option<Line> {
    match format {
        LogFormat::Json => Line::parse(entry),
        LogFormat::Local => message(entry),
    }
}

/// Where the last `wanted` entries begin, and how many there are from there on.
pub(super) fn start_of_last(
    format: LogFormat,
    file: &mut (impl Read + Seek),
    wanted: usize,
) -> io::Result<(u64, usize)> {
    match format {
        LogFormat::Json => last_lines(file, wanted),
        LogFormat::Local => last_messages(file, wanted),
    }
}

fn last_lines(file: &mut (impl Read + Seek), wanted: usize) -> io::Result<(u64, usize)> {
    let length = file.seek(SeekFrom::End(0))?;
    if wanted == 0 || length == 0 {
        return Ok((length, 0));
    }
    let (mut end, mut found) = (length, 0);
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.by_ref().take(end - start).read_to_end(&mut block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            let position = start + at as u64 + 1;
            // The line feed at the very end ends the last line; the others begin one.
            if *byte == b'\n' && position != length {
                found += 1;
                if found == wanted {
                    return Ok((position, found));
                }
            }
        }
        end = start;
    }
    Ok((0, found + 1))
}

fn last_messages(file: &mut (impl Read + Seek), wanted: usize) -> io::Result<(u64, usize)> {
    let mut at = file.seek(SeekFrom::End(0))?;
    let mut found = 0;
    while found < wanted && at >= 8 {
        file.seek(SeekFrom::Start(at - 4))?;
        let mut length = [0; 4];
        file.read_exact(&mut length)?;
        let Some(begin) = at.checked_sub(u64::from(u32::from_be_bytes(length)) + 8) else { break };
        at = begin;
        found += 1;
    }
    Ok((at, found))
}

fn message_length(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    (length <= LONGEST).then_some(length)
}

/// A `LogEntry` of dockerd's `logdriver/entry.proto`; `None`, too, for one of another source, which dockerd does not tell: a crash has torn it
/// before its text (see the shim's `log::torn`).
fn message(bytes: &[u8]) -> Option<Line> {
    let (mut text, mut source, mut nanos) = (Vec::new(), &b""[..], 0);
    let (mut partial, mut last, mut attributes) = (false, false, Vec::new());
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(value)) => source = value,
            (2, Value::Number(value)) => nanos = value as i64,
            (3, Value::Bytes(value)) => text = value.to_vec(),
            (4, Value::Number(value)) => partial = value != 0,
            (5, Value::Bytes(value)) => {
                last = Fields(value).any(|f| matches!(f, Some((1, Value::Number(1)))))
            }
            (6, Value::Bytes(value)) => attributes.push(attribute(value)?),
            // Fields of a newer writer.
            _ => {}
        }
    }
    if !partial || last {
        text.push(b'\n');
    }
    let is_stderr = match source {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    Some(Line { text, is_stderr, time: Timestamp::from_unix_nanos(nanos), attributes })
}

fn attribute(bytes: &[u8]) -> Option<(String, String)> {
    let (mut key, mut value) = (String::new(), String::new());
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(bytes)) => key = String::from_utf8_lossy(bytes).into_owned(),
            (2, Value::Bytes(bytes)) => value = String::from_utf8_lossy(bytes).into_owned(),
            _ => {}
        }
    }
    Some((key, value))
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// A protobuf message's fields by number; `None` for what is none.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (value, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(value)
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn the_last_lines_are_found_across_blocks() {
        let text: String = (0..40_000).map(|n| format!("{n}\n")).collect();
        let last = |lines| last_lines(&mut Cursor::new(text.as_bytes()), lines).unwrap();
        let (start, found) = last(2);
        assert_eq!((&text[start as usize..], found), ("39998\n39999\n", 2));
        assert_eq!(text[last(30_000).0 as usize..].lines().count(), 30_000);
        assert_eq!(last(0), (text.len() as u64, 0));
        assert_eq!((last(40_000), last(99_999)), ((0, 40_000), (0, 40_000)));
    }

    /// As the shim's own test writes it.
    const MESSAGE: &[u8] = b"\0\0\0\x0f\x0a\x06stderr\x10\xac\x02\x1a\x02hi\0\0\0\x0f";
    const PART: &[u8] = b"\x0a\x06stdout\x10\x01\x1a\x01x\x20\x01\x2a\x16\x08\x01\x12\x100000000000000001\x18\x02\x32\x06\x0a\x01k\x12\x01v";

    #[test]
    fn messages_are_found_from_either_end() {
        let three = MESSAGE.repeat(3);
        let torn = [&three[..], &MESSAGE[..10]].concat();
        assert_eq!(whole(LogFormat::Local, &torn), three.len());
        let (one, rest) = first(LogFormat::Local, &three).unwrap();
        assert_eq!((one, rest.len()), (&MESSAGE[4..19], three.len() * 2 / 3));
        let last = |wanted| last_messages(&mut Cursor::new(&three), wanted).unwrap();
        let length = MESSAGE.len() as u64;
        assert_eq!((last(0), last(2), last(9)), ((3 * length, 0), (length, 2), (0, 3)));
    }

    #[test]
    fn a_message_is_a_line() {
        let line = message(&MESSAGE[4..19]).unwrap();
        let time = Timestamp::from_unix_nanos(300);
        assert_eq!(line, Line { text: b"hi\n".into(), is_stderr: true, time, attributes: Vec::new() });
        let part = message(PART).unwrap();
        assert_eq!(
            (&part.text[..], &part.attributes[..]),
            (&b"x\n"[..], &[("k".to_owned(), "v".to_owned())][..])
        );
        assert_eq!(message(b"\x0a\xff"), None);
    }

    const EMPTY: &[u8] = b"\x0a\x06stdout\x10\xac\x02\x1a\x00";
    const MIDDLE: &[u8] =
        b"\x0a\x06stdout\x10\xac\x02\x1a\x02hi\x20\x01\x2a\x14\x12\x100000000000000001\x18\x02";

    /// Whether every reader of protobufs can read it.
    fn is_whole(bytes: &[u8]) -> bool {
        Fields(bytes).all(|field| match field {
            Some((5 | 6, Value::Bytes(value))) => Fields(value).all(|field| field.is_some()),
            other => other.is_some(),
        })
    }

    #[test]
    fn what_was_cut_short_is_nothing_or_a_line_of_its_own() {
        let long = [b"\x0a\x06stdout\x10\xac\x02\x1a\x90\x03", &[b'x'; 400][..], &PART[13..]].concat();
        // Each with the place of its text.
        for (entry, at) in [(&MESSAGE[4..19], 13), (PART, 12), (EMPTY, 13), (MIDDLE, 13), (&long, 14)] {
            let whole = message(entry).unwrap();
            for end in 0..entry.len() {
                let (written, missing) = (&entry[..end], entry.len() - end);
                let found = [written, &torn::rest(written, missing)].concat();
                assert!(found.len() == entry.len() && is_whole(&found), "{found:?} to {end}");
                let Some(line) = message(&found) else {
                    assert!(end <= at, "{found:?} has text to {end}");
                    continue;
                };
                assert!(end + 1 >= at, "{found:?} has no text to {end}");
                assert_eq!((line.time, line.is_stderr), (whole.time, whole.is_stderr), "{found:?}");
                assert!(whole.text.starts_with(line.text.trim_ascii_end()), "{line:?}");
                assert!(line.text.ends_with(b"\n") || (entry, missing) == (MIDDLE, 1), "{found:?} to {end}");
            }
        }
        for length in [0, 256, 512, 16384 + 256] {
            let found = torn::rest(&[], length);
            assert!(found.len() == length && is_whole(&found) && message(&found).is_none());
        }
    }
}
