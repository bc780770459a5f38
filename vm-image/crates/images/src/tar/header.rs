//! The 512-byte header (`tar(5)`; POSIX.1-2024, `pax`, "ustar Interchange Format").

use super::{Chunk, Device, Kind, Member, TarError, Time};

pub(super) const BLOCK: usize = 512;

/// One block of an archive.
#[derive(Debug, Clone)]
pub(super) struct Block(pub(super) [u8; BLOCK]);

#[derive(PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Gnu,
}

impl Block {
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The block, if its checksum is right: the sum of its bytes, taken as unsigned or (by old programs) as signed.
    pub(super) fn checked(self) -> Result<Self, TarError> {
        let written = number(&self.0[148..156])?;
        let (before, after) = (&self.0[..148], &self.0[156..]);
        let bytes = || before.iter().chain(&[b' '; 8]).chain(after);
        let unsigned: u64 = bytes().map(|byte| u64::from(*byte)).sum();
        let signed: i64 = bytes().map(|byte| i64::from(*byte as i8)).sum();
        if written == unsigned || i64::try_from(written) == Ok(signed) {
            Ok(self)
        } else {
            Err(TarError::Header)
        }
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        number(&self.0[124..136])
    }

    /// What the header alone says.
    pub(super) fn member(&self) -> Result<Member, TarError> {
        Ok(Member {
            kind: self.member_kind()?,
            path: self.path(),
            target: until_nul(&self.0[157..257]).to_vec(),
            mode: number(&self.0[100..108])? as u32 & 0o7777,
            uid: number(&self.0[108..116])?,
            gid: number(&self.0[116..124])?,
            mtime: self.mtime(),
            stored: self.size()?,
            ..Member::default()
        })
    }

    fn format(&self) -> Format {
        match &self.0[257..265] {
            b"ustar  \0" => Format::Gnu,
            magic if magic.starts_with(b"ustar\0") => Format::Ustar,
            _ => Format::V7,
        }
    }

    fn path(&self) -> Vec<u8> {
        let name = until_nul(&self.0[..100]);
        let prefix = until_nul(&self.0[345..500]);
        match self.format() == Format::Ustar && !prefix.is_empty() {
            true => [prefix, b"/", name].concat(),
            false => name.to_vec(),
        }
    }

    fn member_kind(&self) -> Result<Kind, TarError> {
        match self.kind() {
            0 | b'0' | b'7' | b'S' => Ok(Kind::File),
            b'1' => Ok(Kind::HardLink),
            b'2' => Ok(Kind::Symlink),
            b'3' => Ok(Kind::CharDevice(self.device()?)),
            b'4' => Ok(Kind::BlockDevice(self.device()?)),
            b'5' => Ok(Kind::Directory),
            b'6' => Ok(Kind::Fifo),
            other => Err(TarError::Kind(other.into())),
        }
    }

    fn device(&self) -> Result<Device, TarError> {
        let part = |field| u32::try_from(number(field)?).map_err(|_| TarError::Header);
        Ok(Device { major: part(&self.0[329..337])?, minor: part(&self.0[337..345])? })
    }

    /// A time that cannot be read, or is before 1970, is 1970.
    fn mtime(&self) -> Time {
        let seconds = number(&self.0[136..148]).ok().and_then(|seconds| i64::try_from(seconds).ok());
        Time { seconds: seconds.unwrap_or_default(), nanoseconds: 0 }
    }

    /// GNU: the size of a sparse file with its holes.
    pub(super) fn real_size(&self) -> Result<u64, TarError> {
        number(&self.0[483..495])
    }

    /// GNU: the first chunks of a sparse file; whether more follow.
    pub(super) fn sparse_chunks(&self, chunks: &mut Vec<Chunk>) -> Result<bool, TarError> {
        sparse_table(&self.0[386..482], chunks)?;
        Ok(self.0[482] != 0)
    }

    /// GNU: the next chunks of a sparse file; whether more follow.
    pub(super) fn more_sparse_chunks(&self, chunks: &mut Vec<Chunk>) -> Result<bool, TarError> {
        sparse_table(&self.0[..504], chunks)?;
        Ok(self.0[504] != 0)
    }
}

fn sparse_table(table: &[u8], chunks: &mut Vec<Chunk>) -> Result<(), TarError> {
    for row in table.chunks_exact(24).take_while(|row| row[0] != 0) {
        chunks.push(Chunk { offset: number(&row[..12])?, length: number(&row[12..])? });
    }
    Ok(())
}

pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits, or in base 256 if the highest bit is set. Negative numbers are refused.
fn number(field: &[u8]) -> Result<u64, TarError> {
    match field.first() {
        Some(first) if first & 0x80 != 0 => base_256(field),
        _ => octal(field),
    }
}

fn base_256(field: &[u8]) -> Result<u64, TarError> {
    let mut number = u64::from(field[0] & 0x7f);
    for byte in &field[1..] {
        number = number.checked_mul(256).ok_or(TarError::Header)? | u64::from(*byte);
    }
    Ok(number)
}

fn octal(field: &[u8]) -> Result<u64, TarError> {
    let digits = until_nul(field).trim_ascii();
    let mut number = 0_u64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(TarError::Header);
        }
        number = number.checked_mul(8).ok_or(TarError::Header)? + u64::from(digit - b'0');
    }
    Ok(number)
}
