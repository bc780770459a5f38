//! Compressed streams, told by their first bytes and never by their names or media types.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

/// The longest beginning that has to be seen.
const MAGIC_MAX: usize = 6;

/// The largest window that a zstd stream may ask for, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Reads `source` through the decompressor that its first bytes ask for.
pub(crate) fn decompressed<'a>(source: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    Opened::new(source)?.decompressed()
}

/// A stream whose first bytes have been seen.
pub(super) struct Opened<R> {
    pub(super) format: Format,
    whole: io::Chain<io::Cursor<Vec<u8>>, R>,
}

impl<R: Read> Opened<R> {
    pub(super) fn new(mut source: R) -> io::Result<Self> {
        let start = first_bytes(&mut source)?;
        Ok(Self { format: Format::of(&start), whole: io::Cursor::new(start).chain(source) })
    }

    /// The stream as it is, from its beginning.
    pub(super) fn whole(self) -> impl Read {
        self.whole
    }

    fn decompressed<'a>(self) -> io::Result<Box<dyn Read + Send + 'a>>
    where
        R: Send + 'a,
    {
        self.format.decompress(self.whole)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Plain,
    Gzip,
    Zstd,
    Unsupported(&'static str),
}

impl Format {
    /// Reads a stream of this format from its beginning.
    pub(super) fn decompress<'a>(
        self,
        whole: impl Read + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        match self {
            Self::Plain => Ok(Box::new(whole)),
            Self::Gzip => Ok(Box::new(MultiGzDecoder::new(whole))),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::new(whole)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Ok(Box::new(decoder))
            }
            Self::Unsupported(name) => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("{name} compression is not supported: use gzip, zstd or none"),
            )),
        }
    }

    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            // A frame, or a frame to be skipped (RFC 8878, section 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Unsupported("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Unsupported("xz"),
            _ => Self::Plain,
        }
    }
}

fn first_bytes(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(MAGIC_MAX);
    source.take(MAGIC_MAX as u64).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompressed(bytes)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn the_first_bytes_tell() {
        let text = b"what is in here".repeat(99);
        assert_eq!(read(&text).unwrap(), text);
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"ab").unwrap(), b"ab");
        assert_eq!(read(&gzip(&text)).unwrap(), text);
        assert_eq!(read(&[gzip(&text), gzip(b"more")].concat()).unwrap(), [&text[..], b"more"].concat());
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        assert_eq!(read(&zstd).unwrap(), text);
        assert_eq!(read(&[&zstd[..], &zstd[..]].concat()).unwrap(), text.repeat(2));
    }

    #[test]
    fn what_ends_too_early_is_an_error() {
        let text = b"what is in here".repeat(99);
        let gzip = gzip(&text);
        assert!(read(&gzip[..gzip.len() - 1]).is_err());
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        assert!(read(&zstd[..zstd.len() - 1]).is_err());
    }

    #[test]
    fn others_are_refused_by_name() {
        assert!(read(b"BZh91AY").unwrap_err().to_string().starts_with("bzip2"));
        assert!(read(b"\xfd7zXZ\0\0").unwrap_err().to_string().starts_with("xz"));
    }
}
