//! Writes tar archives: ustar headers, and PAX records for what does not fit into them.
//!
//! What Go's `archive/tar` makes of the same files, to the second of a file's time: it is what images are made of.

use std::io::{self, Write};

use super::header::BLOCK;
use super::{Device, Kind, Member};

/// The largest number that fits into the eight bytes of an owner.
const OWNER_MAX: u64 = 0o7_777_777;
/// The largest number that fits into the twelve bytes of a size.
const SIZE_MAX: u64 = 0o77_777_777_777;
const NAME_LENGTH: usize = 100;

/// An archive that is being written.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    to: W,
    /// Bytes of the present member's data that are still to come.
    remaining: u64,
    padding: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(to: W) -> Self {
        Self { to, remaining: 0, padding: 0 }
    }

    /// Begins a member. `stored` bytes of [`data`](Self::data) follow; what is missing of the last one's is zeros.
    pub(crate) fn member(&mut self, member: &Member) -> io::Result<()> {
        self.end_data()?;
        let records = records(member);
        if !records.is_empty() {
            let size = records.len() as u64;
            self.to.write_all(&header(&Fields {
                kind: b'x',
                path: b"PaxHeaders.0/pax",
                size,
                ..Fields::default()
            }))?;
            self.to.write_all(&records)?;
            self.fill(size.next_multiple_of(BLOCK as u64) - size)?;
        }
        let (kind, type_bits, device) = match member.kind {
            Kind::File => (b'0', 0o100_000, Device::default()),
            Kind::HardLink => (b'1', 0o100_000, Device::default()),
            Kind::Symlink => (b'2', 0o120_000, Device::default()),
            Kind::CharDevice(device) => (b'3', 0o020_000, device),
            Kind::BlockDevice(device) => (b'4', 0o060_000, device),
            Kind::Directory => (b'5', 0o040_000, Device::default()),
            Kind::Fifo => (b'6', 0o010_000, Device::default()),
        };
        let size = if member.kind == Kind::File { member.stored } else { 0 };
        self.to.write_all(&header(&Fields {
            kind,
            path: &member.path,
            target: &member.target,
            mode: u64::from(member.mode & 0o7777) | type_bits,
            owner: (member.uid, member.gid),
            size,
            mtime: u64::try_from(member.mtime.seconds).unwrap_or(0),
            device,
        }))?;
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// The next bytes of the present member; what is too much is left out.
    pub(crate) fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
        self.to.write_all(&bytes[..most])?;
        self.remaining -= most as u64;
        Ok(())
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.end_data()?;
        self.fill(2 * BLOCK as u64)?;
        self.to.flush()
    }

    fn end_data(&mut self) -> io::Result<()> {
        let missing = std::mem::take(&mut self.remaining) + std::mem::take(&mut self.padding);
        self.fill(missing)
    }

    fn fill(&mut self, mut zeros: u64) -> io::Result<()> {
        const ZEROS: [u8; 8192] = [0; 8192];
        while zeros > 0 {
            let some = zeros.min(ZEROS.len() as u64);
            self.to.write_all(&ZEROS[..some as usize])?;
            zeros -= some;
        }
        Ok(())
    }
}

/// What a header says.
#[derive(Default)]
struct Fields<'a> {
    kind: u8,
    path: &'a [u8],
    target: &'a [u8],
    mode: u64,
    owner: (u64, u64),
    size: u64,
    mtime: u64,
    device: Device,
}

fn header(fields: &Fields<'_>) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    text(&mut block[..100], fields.path);
    octal(&mut block[100..108], fields.mode);
    octal(&mut block[108..116], fields.owner.0);
    octal(&mut block[116..124], fields.owner.1);
    octal(&mut block[124..136], fields.size);
    octal(&mut block[136..148], fields.mtime);
    block[156] = fields.kind;
    text(&mut block[157..257], fields.target);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], fields.device.major.into());
    octal(&mut block[337..345], fields.device.minor.into());
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

/// What is too long is told by a record, and cut here.
fn text(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// What is too large is told by a record, and zero here.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    let text = if text.len() > digits { "0".repeat(digits) } else { text };
    field[..digits].copy_from_slice(text.as_bytes());
}

/// The PAX records of what the header cannot say.
fn records(member: &Member) -> Vec<u8> {
    let mut records = Vec::new();
    for (key, value) in [(&b"path"[..], &member.path), (b"linkpath", &member.target)] {
        if value.len() > NAME_LENGTH || !value.is_ascii() {
            record(&mut records, key, value);
        }
    }
    for (key, value, most) in [
        (&b"size"[..], member.stored, SIZE_MAX),
        (b"uid", member.uid, OWNER_MAX),
        (b"gid", member.gid, OWNER_MAX),
    ] {
        if value > most {
            record(&mut records, key, value.to_string().as_bytes());
        }
    }
    for (name, value) in &member.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// One record: its own length, in digits that count too, a blank, key, value and a line feed.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() + rest > length {
        length += 1;
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::super::{Archive, Time};
    use super::*;

    fn written(members: &[(Member, &[u8])]) -> Vec<u8> {
        let mut archive = Vec::new();
        let mut writer = Writer::new(&mut archive);
        for (member, data) in members {
            writer.member(member).unwrap();
            writer.data(data).unwrap();
        }
        writer.finish().unwrap();
        archive
    }

    #[test]
    fn what_is_written_is_read_again() {
        let plain = Member {
            path: b"etc/passwd".into(),
            mode: 0o4755,
            uid: 5,
            gid: 6,
            mtime: Time { seconds: 1_700_000_000, nanoseconds: 0 },
            stored: 3,
            ..Member::default()
        };
        let odd = Member {
            path: [b"d/".as_slice(), &[b'x'; 300], "ä/".as_bytes()].concat(),
            kind: Kind::Directory,
            uid: 5_000_000_000,
            xattrs: vec![(b"user.a".to_vec(), b"b\n\0c".to_vec())],
            ..Member::default()
        };
        let link = Member {
            path: b"l".into(),
            target: [b'y'; 101].into(),
            kind: Kind::Symlink,
            ..Member::default()
        };
        let node = Member {
            path: b"n".into(),
            kind: Kind::CharDevice(Device { major: 5, minor: 1 }),
            ..Member::default()
        };
        let bytes =
            written(&[(plain.clone(), b"abc"), (odd.clone(), b""), (link.clone(), b""), (node.clone(), b"")]);
        assert_eq!(bytes.len() % BLOCK, 0);
        let mut archive = Archive::new(&bytes[..]);
        for wanted in [plain, odd, link, node] {
            let found = archive.next_member().unwrap().unwrap();
            assert_eq!(format!("{found:?}"), format!("{wanted:?}"));
        }
        assert!(archive.next_member().unwrap().is_none());
    }

    #[test]
    fn a_file_that_shrank_is_filled_and_one_that_grew_is_cut() {
        let file = |path: &str| Member { path: path.into(), stored: 4, ..Member::default() };
        let bytes = written(&[(file("short"), b"ab"), (file("long"), b"abcdefgh")]);
        let mut archive = Archive::new(&bytes[..]);
        for wanted in [b"ab\0\0", b"abcd"] {
            archive.next_member().unwrap().unwrap();
            let mut found = [0; 4];
            assert_eq!(archive.read_data(&mut found).unwrap(), 4);
            assert_eq!(&found, wanted);
        }
        assert!(archive.next_member().unwrap().is_none());
    }

    #[test]
    fn a_record_counts_the_digits_of_its_own_length() {
        for length in 80..110 {
            let mut records = Vec::new();
            record(&mut records, b"k", &vec![b'v'; length]);
            let digits: String =
                records.iter().map(|b| char::from(*b)).take_while(char::is_ascii_digit).collect();
            assert_eq!(digits.parse::<usize>().unwrap(), records.len());
        }
    }
}
