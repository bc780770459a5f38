//! gzip (RFC 1952) by all processors at once.
//!
//! A stream is cut into blocks of the same size, and each is compressed on its own, by whichever thread is free. As in pigz, a block
//! has the end of the one before as its dictionary, so that cutting costs next to nothing, and ends at a byte's boundary, so that the
//! compressed blocks one after another are a stream again. What comes out depends on what goes in alone, never on how many threads there
//! are: the same layer has the same digest on every computer.
//!
//! Memory does not depend on the stream's length: no more than two blocks a thread are under way.
//!
//! Why not the `gzp` crate, which does the same: it panics when a stream is given up whose output fails, and a panic ends the engine.

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress};

/// How much is compressed at once.
const BLOCK: usize = 256 * 1024;
/// How far back deflate looks (RFC 1951, section 2).
const WINDOW: usize = 32 * 1024;
/// More than a block of noise grows by.
const GROWTH: usize = 1024;
/// More threads than this serve no upload.
const THREADS_MAX: usize = 8;

/// Deflate, no name, no time, an unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// A last block with nothing in it, since all others say that another follows.
const END: [u8; 2] = [3, 0];

/// How many threads compress a stream: one for each processor.
pub(super) fn threads() -> NonZeroUsize {
    let most = NonZeroUsize::new(THREADS_MAX).unwrap_or(NonZeroUsize::MIN);
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN).min(most)
}

/// Compresses all that `source` gives into `out`, by so many threads beside this one, which reads and writes.
pub(super) fn compress(mut source: impl Read, out: &mut impl Write, threads: NonZeroUsize) -> io::Result<()> {
    out.write_all(&HEADER)?;
    let under_way = 2 * threads.get();
    let (give, jobs) = sync_channel(under_way);
    let jobs = Mutex::new(jobs);
    let check = thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, || work(&jobs)).map(drop);
        let started: Vec<io::Result<()>> = (0..threads.get()).map(start).collect();
        // Fewer threads than wanted do as well.
        if started.iter().all(Result::is_err) {
            started.into_iter().collect::<io::Result<()>>()?;
        }
        // Whatever it ends in, the threads end with `give`.
        feed(&mut source, out, give, under_way)
    })?;
    out.write_all(&END)?;
    out.write_all(&check.sum().to_le_bytes())?;
    out.write_all(&check.amount().to_le_bytes())
}

/// A block to be compressed, and who waits for it.
struct Job {
    block: Vec<u8>,
    dictionary: Vec<u8>,
    done: SyncSender<io::Result<Packed>>,
}

/// A block that is compressed, with the checksum of what is in it.
struct Packed {
    bytes: Vec<u8>,
    check: Crc,
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    let mut deflate = Compress::new(Compression::default(), false);
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(Job { block, dictionary, done }) = next() {
        // Who gave up waits no more.
        let _ = done.send(pack(&mut deflate, &block, &dictionary));
    }
}

fn pack(deflate: &mut Compress, block: &[u8], dictionary: &[u8]) -> io::Result<Packed> {
    deflate.reset();
    if !dictionary.is_empty() {
        deflate.set_dictionary(dictionary)?;
    }
    let mut bytes = Vec::with_capacity(block.len() + GROWTH);
    // It is done when it has taken all and there was room left.
    while deflate.total_in() < block.len() as u64 || bytes.len() == bytes.capacity() {
        bytes.reserve(GROWTH);
        deflate.compress_vec(&block[deflate.total_in() as usize..], &mut bytes, FlushCompress::Sync)?;
    }
    let mut check = Crc::new();
    check.update(block);
    Ok(Packed { bytes, check })
}

/// Gives blocks to the threads, and writes what they make of them, in order; the checksum of all.
fn feed(
    source: &mut impl Read,
    out: &mut impl Write,
    give: SyncSender<Job>,
    under_way: usize,
) -> io::Result<Crc> {
    let mut check = Crc::new();
    let mut write = |packed: Receiver<io::Result<Packed>>| {
        let packed = packed.recv().map_err(io::Error::other)??;
        check.combine(&packed.check);
        out.write_all(&packed.bytes)
    };
    let mut waiting = std::collections::VecDeque::with_capacity(under_way);
    let mut dictionary = Vec::new();
    loop {
        let mut block = Vec::with_capacity(BLOCK);
        source.by_ref().take(BLOCK as u64).read_to_end(&mut block)?;
        if block.is_empty() {
            break;
        }
        if waiting.len() == under_way {
            waiting.pop_front().map_or(Ok(()), &mut write)?;
        }
        let next_dictionary = block[block.len().saturating_sub(WINDOW)..].to_vec();
        let (done, packed) = sync_channel(1);
        let dictionary = std::mem::replace(&mut dictionary, next_dictionary);
        give.send(Job { block, dictionary, done }).map_err(io::Error::other)?;
        waiting.push_back(packed);
    }
    waiting.into_iter().try_for_each(write)?;
    Ok(check)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words in an order that has no end, so that it compresses as text does.
    fn text(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let word = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            format!("word{} ", state >> 22).into_bytes()
        };
        std::iter::repeat_with(word).flatten().take(length).collect()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
        bytes
    }

    fn packed(bytes: &[u8], threads: usize) -> Vec<u8> {
        let mut out = Vec::new();
        compress(bytes, &mut out, NonZeroUsize::new(threads).unwrap()).unwrap();
        out
    }

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        // One member: a reader that knows no more than that must find all.
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn everything_is_in_one_stream() {
        for bytes in [
            Vec::new(),
            b"a".to_vec(),
            text(BLOCK),
            text(2 * BLOCK + 1),
            noise(BLOCK + 9),
            vec![0; 2 * BLOCK],
        ] {
            assert!(unpacked(&packed(&bytes, 3)) == bytes, "{} bytes", bytes.len());
        }
    }

    #[test]
    fn the_bytes_do_not_depend_on_the_threads_nor_on_how_the_source_gives_them() {
        struct Drop(Vec<u8>, usize);
        impl Read for Drop {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let most = (self.1 % 3000 + 1).min(buffer.len());
                let read = (&self.0[self.1..]).read(&mut buffer[..most])?;
                self.1 += read;
                Ok(read)
            }
        }
        let bytes = text(3 * BLOCK + 12_345);
        let one = packed(&bytes, 1);
        assert!(packed(&bytes, 2) == one && packed(&bytes, 7) == one);
        let mut by_drops = Vec::new();
        compress(Drop(bytes, 0), &mut by_drops, threads()).unwrap();
        assert!(by_drops == one);
    }

    #[test]
    fn cutting_costs_next_to_nothing() {
        let bytes = text(2 * BLOCK);
        let mut whole = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
        whole.write_all(&bytes).unwrap();
        let whole = whole.finish().unwrap().len();
        let cut = packed(&bytes, 2).len();
        assert!(cut * 100 < whole * 101, "{cut} bytes instead of {whole}");
    }

    #[test]
    fn what_fails_ends_it() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = compress(&noise(6 * BLOCK)[..], &mut Full(BLOCK), NonZeroUsize::MIN).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
        let error = compress(text(BLOCK).as_slice().chain(Broken), &mut Vec::new(), threads());
        assert_eq!(error.map_err(|error| error.kind()), Err(io::ErrorKind::InvalidData));
    }
}
