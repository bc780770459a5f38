//! dockerd's `local` entries: a `LogEntry` of `daemon/logger/internal/logdriver/entry.proto` between its length and its length again, as big-endian
//! `u32`s, so that the file can be read from either end.

use std::collections::BTreeMap;
use std::io::Write;

use super::Entry;

/// Makes them.
#[derive(Debug)]
pub(super) struct Entries {
    /// Field 6, once for each attribute; the same in every entry.
    attributes: Vec<u8>,
}

const LENGTH_DELIMITED: u64 = 2;
const VARINT: u64 = 0;

impl Entries {
    pub(super) fn new(attributes: &BTreeMap<String, String>) -> Self {
        let mut encoded = Vec::new();
        for (key, value) in attributes {
            let mut one = Vec::new();
            bytes(1, key.as_bytes(), &mut one);
            bytes(2, value.as_bytes(), &mut one);
            bytes(6, &one, &mut encoded);
        }
        Self { attributes: encoded }
    }

    pub(super) fn write(&mut self, entry: &Entry<'_>, into: &mut Vec<u8>) {
        let start = into.len();
        into.extend_from_slice(&[0; 4]);
        bytes(1, entry.stream.as_bytes(), into);
        number(2, entry.time.0, into);
        bytes(3, entry.text, into);
        if let Some(part) = entry.part {
            number(4, 1, into);
            let mut about = Vec::with_capacity(32);
            if entry.ends {
                number(1, 1, &mut about);
            }
            // dockerd takes a random one; the moment is as good to tell which parts belong together.
            let mut id = [0; 16];
            // Sixteen digits fill it.
            let _ = write!(&mut id[..], "{:016x}", part.since.0);
            bytes(2, &id, &mut about);
            number(3, part.ordinal.into(), &mut about);
            bytes(5, &about, into);
        }
        into.extend_from_slice(&self.attributes);
        let length = u32::try_from(into.len() - start - 4).expect("a part is 16 KiB").to_be_bytes();
        into[start..start + 4].copy_from_slice(&length);
        into.extend_from_slice(&length);
    }
}

fn number(field: u64, value: u64, into: &mut Vec<u8>) {
    varint(field << 3 | VARINT, into);
    varint(value, into);
}

fn bytes(field: u64, value: &[u8], into: &mut Vec<u8>) {
    varint(field << 3 | LENGTH_DELIMITED, into);
    varint(value.len() as u64, into);
    into.extend_from_slice(value);
}

fn varint(mut value: u64, into: &mut Vec<u8>) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

#[cfg(test)]
mod tests {
    use caisson_shim::proto::UnixNanos;

    use super::super::Part;
    use super::*;

    #[test]
    fn an_entry_is_a_message_between_its_lengths() {
        let mut into = Vec::new();
        let time = UnixNanos(300);
        Entries::new(&BTreeMap::new())
            .write(&Entry { text: b"hi", ends: true, stream: "stderr", time, part: None }, &mut into);
        assert_eq!(into, b"\0\0\0\x0f\x0a\x06stderr\x10\xac\x02\x1a\x02hi\0\0\0\x0f");
    }

    #[test]
    fn a_part_says_which_and_attributes_come_last() {
        let mut into = Vec::new();
        let time = UnixNanos(1);
        let part = Some(Part { since: time, ordinal: 2 });
        Entries::new(&[("k".to_owned(), "v".to_owned())].into())
            .write(&Entry { text: b"x", ends: true, stream: "stdout", time, part }, &mut into);
        let message = &into[4..into.len() - 4];
        let expected = b"\x0a\x06stdout\x10\x01\x1a\x01x\x20\x01\x2a\x16\x08\x01\x12\x100000000000000001\x18\x02\x32\x06\x0a\x01k\x12\x01v";
        assert_eq!(message, expected);
    }
}
