//! PAX records: `length key=value` lines in an extension header (POSIX.1-2024, `pax`, "pax Extended Header").

use super::{Chunk, Member, TarError, Time, sparse};

/// The records of one extension header, in order.
#[derive(Debug, Default)]
pub(super) struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, TarError> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or(TarError::Header)?;
            let length = decimal(&bytes[..space])? as usize;
            let record = bytes.get(space + 1..length).ok_or(TarError::Header)?;
            let record = record.strip_suffix(b"\n").ok_or(TarError::Header)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(TarError::Header)?;
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[length..];
        }
        Ok(Self(records))
    }

    /// The last record of this key; an empty value means that the header's own field is good.
    fn get(&self, key: &str) -> Option<&[u8]> {
        let found = self.0.iter().rfind(|(name, _)| name == key.as_bytes());
        found.map(|(_, value)| value.as_slice()).filter(|value| !value.is_empty())
    }

    /// Says over the header's fields what the records say.
    pub(super) fn apply(&self, member: &mut Member) -> Result<(), TarError> {
        if let Some(path) = self.get("GNU.sparse.name").or(self.get("path")) {
            member.path = path.to_vec();
        }
        if let Some(target) = self.get("linkpath") {
            member.target = target.to_vec();
        }
        for (key, field) in [("size", &mut member.stored), ("uid", &mut member.uid), ("gid", &mut member.gid)]
        {
            if let Some(value) = self.get(key) {
                *field = decimal(value)?;
            }
        }
        if let Some(mtime) = self.get("mtime") {
            member.mtime = time(mtime)?;
        }
        member.xattrs = self.xattrs();
        Ok(())
    }

    fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let named = |(key, value): &(Vec<u8>, Vec<u8>)| {
            Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()))
        };
        self.0.iter().filter_map(named).filter(|(name, _)| !name.is_empty() && !name.contains(&0)).collect()
    }

    pub(super) fn is_sparse(&self) -> bool {
        self.sparse_map_is_in_data()
            || self.get("GNU.sparse.map").is_some()
            || self.get("GNU.sparse.numblocks").is_some()
    }

    /// Format 1.0 has its map before the data.
    pub(super) fn sparse_map_is_in_data(&self) -> bool {
        self.get("GNU.sparse.major") == Some(b"1") && self.get("GNU.sparse.minor") == Some(b"0")
    }

    pub(super) fn sparse_size(&self) -> Result<u64, TarError> {
        decimal(self.get("GNU.sparse.realsize").or(self.get("GNU.sparse.size")).ok_or(TarError::Sparse)?)
    }

    /// Format 0.1 has its map in one record, format 0.0 in two for each chunk.
    pub(super) fn sparse_map(&self) -> Result<Vec<Chunk>, TarError> {
        let numbers = match self.get("GNU.sparse.map") {
            Some(map) => map.split(|byte| *byte == b',').map(decimal).collect::<Result<Vec<_>, _>>()?,
            None => self.sparse_map_of_many_records()?,
        };
        sparse::pairs(&numbers)
    }

    fn sparse_map_of_many_records(&self) -> Result<Vec<u64>, TarError> {
        let mut numbers = Vec::new();
        for (key, value) in &self.0 {
            let is_offset = match key.as_slice() {
                b"GNU.sparse.offset" => true,
                b"GNU.sparse.numbytes" => false,
                _ => continue,
            };
            if is_offset != (numbers.len() % 2 == 0) {
                return Err(TarError::Sparse);
            }
            numbers.push(decimal(value)?);
        }
        Ok(numbers)
    }
}

pub(super) fn decimal(digits: &[u8]) -> Result<u64, TarError> {
    let text = std::str::from_utf8(digits).map_err(|_| TarError::Header)?;
    if text.starts_with('+') {
        return Err(TarError::Header);
    }
    text.parse().map_err(|_| TarError::Header)
}

/// Seconds with a fraction; what is before 1970 is 1970.
fn time(text: &[u8]) -> Result<Time, TarError> {
    if text.starts_with(b"-") {
        return Ok(Time::default());
    }
    let dot = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(decimal(&text[..dot])?).map_err(|_| TarError::Header)?;
    let fraction = text.get(dot + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(TarError::Header);
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok(Time { seconds, nanoseconds })
}
