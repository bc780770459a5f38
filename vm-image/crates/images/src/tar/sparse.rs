//! Files with holes: maps of the chunks that an archive has of them.

use super::{Sparse, TarError, pax};

/// Some bytes of a file, between holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Sparse {
    /// Chunks must be in order, apart, within the file, and together as long as the data that is there.
    pub(super) fn check(&self, stored: u64) -> Result<(), TarError> {
        let mut end = 0;
        let mut total = 0_u64;
        for chunk in &self.chunks {
            if chunk.offset < end {
                return Err(TarError::Sparse);
            }
            end = chunk.offset.checked_add(chunk.length).ok_or(TarError::Sparse)?;
            total = total.checked_add(chunk.length).ok_or(TarError::Sparse)?;
        }
        let good = end <= self.size && total == stored && self.size <= i64::MAX as u64;
        if good { Ok(()) } else { Err(TarError::Sparse) }
    }
}

/// Offsets and lengths by turns.
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Chunk>, TarError> {
    if !numbers.len().is_multiple_of(2) {
        return Err(TarError::Sparse);
    }
    Ok(numbers.chunks_exact(2).map(|pair| Chunk { offset: pair[0], length: pair[1] }).collect())
}

/// Reads the map of PAX format 1.0: a count, then offset and length of each chunk, each in a line.
#[derive(Debug, Default)]
pub(super) struct MapReader {
    line: Vec<u8>,
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl MapReader {
    pub(super) fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| self.numbers.len() >= count)
    }

    /// Takes one block; after the last line the rest of it is filling.
    pub(super) fn feed(&mut self, block: &[u8]) -> Result<(), TarError> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            if *byte == b'\n' {
                self.end_line()?;
            } else {
                self.line.push(*byte);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), TarError> {
        let number = pax::decimal(&self.line)?;
        self.line.clear();
        match self.count {
            Some(_) => self.numbers.push(number),
            None => {
                let count = usize::try_from(number).ok().and_then(|chunks| chunks.checked_mul(2));
                self.count = Some(count.ok_or(TarError::Sparse)?);
            }
        }
        Ok(())
    }

    pub(super) fn into_chunks(self) -> Result<Vec<Chunk>, TarError> {
        pairs(&self.numbers)
    }
}
