//! Compressed streams, told by their first bytes and never by their names or media types.

use std::io::{self, Read};

use bzip2::read::MultiBzDecoder;
use flate2::read::MultiGzDecoder;
use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// The longest beginning that has to be seen.
const MAGIC_MAX: usize = 6;

/// The largest window that a zstd stream may ask for, as a power of two: 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// The most memory that an xz stream may ask for, in bytes: twice what `xz -9` takes to decompress.
const XZ_MEMORY_MAX: u64 = 128 << 20;

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
    Bzip2,
    Xz,
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
            // No stream of it asks for more than some megabytes.
            Self::Bzip2 => Ok(Box::new(MultiBzDecoder::new(whole))),
            Self::Xz => {
                let decoder = Stream::new_stream_decoder(XZ_MEMORY_MAX, CONCATENATED)?;
                Ok(Box::new(XzDecoder::new_stream(whole, decoder)))
            }
        }
    }

    fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Self::Gzip,
            // A frame, or a frame to be skipped (RFC 8878, section 3.1).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
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
    use std::io::Write;

    use bzip2::read::BzEncoder;
    use liblzma::read::XzEncoder;
    use liblzma::stream::{Check, Filters, LzmaOptions};

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        BzEncoder::new(bytes, bzip2::Compression::fast()).read_to_end(&mut out).unwrap();
        out
    }

    fn xz(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        XzEncoder::new(bytes, 0).read_to_end(&mut out).unwrap();
        out
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
        for packed in [zstd::encode_all(&text[..], 1).unwrap(), bzip2(&text), xz(&text)] {
            assert_eq!(read(&packed).unwrap(), text);
            assert_eq!(read(&[&packed[..], &packed[..]].concat()).unwrap(), text.repeat(2));
        }
    }

    #[test]
    fn what_ends_too_early_is_an_error() {
        let text = b"what is in here".repeat(99);
        for packed in [gzip(&text), zstd::encode_all(&text[..], 1).unwrap(), bzip2(&text), xz(&text)] {
            assert!(read(&packed[..packed.len() - 1]).is_err());
        }
    }

    #[test]
    fn an_xz_stream_that_wants_too_much_memory_is_refused() {
        let mut options = LzmaOptions::new_preset(6).unwrap();
        let packed = |options: &LzmaOptions| {
            let stream = Stream::new_stream_encoder(Filters::new().lzma2(options), Check::Crc32).unwrap();
            let mut out = Vec::new();
            XzEncoder::new_stream(&b"small"[..], stream).read_to_end(&mut out).unwrap();
            out
        };
        assert_eq!(read(&packed(&options)).unwrap(), b"small");
        options.dict_size(XZ_MEMORY_MAX as u32);
        assert!(read(&packed(&options)).is_err());
    }
}
