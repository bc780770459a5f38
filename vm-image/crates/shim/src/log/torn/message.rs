//! The rest of a `LogEntry` that was cut short: as long as was told before it, and with it a message to every reader of protobufs.
//!
//! What was written stays, but of a field that is there twice the last one counts. So what has none of its text gets another source, whose
//! entries no reader tells (neither dockerd's nor the engine's); what has some says that its line ends here. Then follows a field that
//! nobody knows. Text that is cut short is filled up with blanks, for its length is written before it.

const TEXT: u8 = 3;
const VARINT: u8 = 0;

/// What was cut short.
#[derive(Clone, Copy)]
enum Message {
    Entry {
        has_text: bool,
    },
    /// An entry's field 5, of which part of a line it is.
    Part,
    /// An entry's field 6.
    Attribute,
}

/// What is to follow `written`, `missing` bytes long.
pub(super) fn rest(written: &[u8], missing: usize) -> Vec<u8> {
    let mut rest = Message::Entry { has_text: false }.rest(written, missing);
    // It is that long already if a writer of ours has written the beginning.
    rest.resize(missing, b' ');
    rest
}

impl Message {
    fn rest(mut self, mut written: &[u8], missing: usize) -> Vec<u8> {
        while let Some((key, after)) = written.split_first() {
            let (field, is_number) = (key >> 3, key & 7 == VARINT);
            let (number, after) = match varint(after) {
                Ok(read) => read,
                Err(begun) => return self.rest_of_number(field, if is_number { 0 } else { begun }, missing),
            };
            let value = if is_number { 0 } else { number };
            let Some((_, next)) = after.split_at_checked(value) else {
                return self.after_text(field, after.len()).rest_of_value(
                    field,
                    after,
                    value - after.len(),
                    missing,
                );
            };
            self = self.after_text(field, usize::MAX);
            written = next;
        }
        self.padding(missing)
    }

    /// The same, when so much of a field is written.
    fn after_text(self, field: u8, written: usize) -> Self {
        match self {
            Self::Entry { .. } if field == TEXT && written > 0 => Self::Entry { has_text: true },
            other => other,
        }
    }

    /// A number, or the length of a value, ends with no more than was written of it.
    fn rest_of_number(self, field: u8, value: usize, missing: usize) -> Vec<u8> {
        let after = missing.saturating_sub(1);
        // No field is of one byte: the number takes that, too.
        let (mut rest, after) =
            if after.checked_sub(1) == Some(value) { (vec![0x80, 0], value) } else { (vec![0], after) };
        rest.extend(self.rest_of_value(field, &[], value, after));
        rest
    }

    /// The rest of a value, of which `torn` bytes are missing, and of all.
    fn rest_of_value(self, field: u8, written: &[u8], torn: usize, missing: usize) -> Vec<u8> {
        let torn = torn.min(missing);
        let mut rest = match (self, field) {
            (Self::Entry { .. }, 5) => Self::Part.rest(written, torn),
            (Self::Entry { .. }, 6) => Self::Attribute.rest(written, torn),
            _ => vec![b' '; torn],
        };
        rest.extend(self.padding(missing - torn));
        rest
    }

    /// Whole fields, so many bytes of them. None is one byte long.
    fn padding(self, length: usize) -> Vec<u8> {
        const SOURCE: u8 = 1;
        const UNKNOWN: u8 = 15;
        const IS_NO_PART: [u8; 2] = [4 << 3 | VARINT, 0];
        const IS_THE_LAST: [u8; 2] = [1 << 3 | VARINT, 1];
        let [key, value] = match self {
            Self::Entry { has_text: false } => return blank(SOURCE, length),
            Self::Attribute => return blank(UNKNOWN, length),
            Self::Entry { has_text: true } => IS_NO_PART,
            Self::Part => IS_THE_LAST,
        };
        match length {
            0 | 1 => vec![b' '; length],
            3 => vec![key, value | 0x80, 0],
            _ => [vec![key, value], blank(UNKNOWN, length - 2)].concat(),
        }
    }
}

/// A field of blanks, so long as a whole.
fn blank(field: u8, length: usize) -> Vec<u8> {
    const LENGTH_DELIMITED: u8 = 2;
    let key = field << 3 | LENGTH_DELIMITED;
    let mut head = match length {
        0 | 1 => vec![],
        2..130 => vec![key, (length - 2) as u8],
        // Three bytes of seven bits hold the length of any entry.
        _ => {
            let [low, middle, high] = [0, 7, 14].map(|bits| ((length - 4) >> bits) as u8);
            vec![key, low | 0x80, middle | 0x80, high & 0x7f]
        }
    };
    head.resize(length, b' ');
    head
}

/// A number and what follows it; or what there is of one.
fn varint(bytes: &[u8]) -> Result<(usize, &[u8]), usize> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate() {
        // What is too large for any length is a moment, of which nobody asks.
        value |= usize::from(byte & 0x7f).checked_shl(7 * at as u32).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err(value)
}
