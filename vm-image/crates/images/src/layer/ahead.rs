//! Reads ahead on a thread of its own, so that a layer is decompressed and hashed there while what came before is
//! unpacked here. Memory is bounded: no more than a few pieces are under way.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// How much is read at once, at most.
const PIECE: usize = 128 * 1024;
/// How many pieces may wait to be taken.
const PIECES: usize = 8;

/// What has been read ahead.
pub(crate) struct Ahead {
    pieces: Receiver<io::Result<Vec<u8>>>,
    used: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

/// Lets `take` read what `source` gives, and returns what it makes of it and the source, once neither is at work.
///
/// What a source gives is taken at once, however little it is. It is not read to its end unless `take` does that; but one that gives
/// nothing holds the end up until it gives something, or ends.
pub(crate) fn read_ahead<R: Read + Send, T>(source: R, take: impl FnOnce(&mut Ahead) -> T) -> (T, R) {
    let (filled, pieces) = sync_channel(PIECES);
    let (used, empty) = sync_channel(PIECES);
    thread::scope(|scope| {
        let reading = scope.spawn(move || fill(source, &filled, &empty));
        let mut ahead = Ahead { pieces, used, current: Vec::new(), at: 0 };
        let taken = take(&mut ahead);
        // Whoever reads ahead sees that nobody takes any more.
        drop(ahead);
        match reading.join() {
            Ok(source) => (taken, source),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn fill<R: Read>(mut source: R, filled: &SyncSender<io::Result<Vec<u8>>>, empty: &Receiver<Vec<u8>>) -> R {
    loop {
        let mut piece = empty.try_recv().unwrap_or_default();
        piece.resize(PIECE, 0);
        let (read, is_last) = match source.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) => return source,
            Ok(length) => {
                piece.truncate(length);
                (Ok(piece), false)
            }
            Err(error) => (Err(error), true),
        };
        if filled.send(read).is_err() || is_last {
            return source;
        }
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.len() {
            self.at = 0;
            // If it has enough of them, this one is let go.
            let _ = self.used.try_send(std::mem::take(&mut self.current));
            match self.pieces.recv() {
                Ok(piece) => self.current = piece?,
                Err(_) => return Ok(0),
            }
        }
        let length = buffer.len().min(self.current.len() - self.at);
        buffer[..length].copy_from_slice(&self.current[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_in_order() {
        let bytes: Vec<u8> = (0..3 * PIECE as u32 + 7).map(|number| (number % 251) as u8).collect();
        let (read, left) = read_ahead(&bytes[..], |ahead| {
            let mut all = Vec::new();
            ahead.read_to_end(&mut all).map(|_| all)
        });
        assert!(read.unwrap() == bytes && left.is_empty());
    }

    #[test]
    fn an_error_comes_after_what_came_before_it() {
        struct Broken(usize);
        impl Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::ConnectionAborted)?;
                buffer[0] = 7;
                Ok(1)
            }
        }
        let (read, _) = read_ahead(Broken(3), |ahead| {
            let mut all = Vec::new();
            (ahead.read_to_end(&mut all).map_err(|error| error.kind()), all)
        });
        assert_eq!(read, (Err(io::ErrorKind::ConnectionAborted), vec![7; 3]));
    }

    #[test]
    fn who_takes_no_more_ends_it() {
        let (first, _) = read_ahead(io::repeat(1), |ahead| {
            let mut one = [0];
            ahead.read_exact(&mut one).map(|()| one)
        });
        assert_eq!(first.unwrap(), [1]);
    }

    #[test]
    fn what_is_there_is_taken_before_more_comes() {
        let (give, given) = std::sync::mpsc::channel::<u8>();
        struct Slow(Receiver<u8>);
        impl Read for Slow {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let Ok(byte) = self.0.recv() else { return Ok(0) };
                buffer[0] = byte;
                Ok(1)
            }
        }
        give.send(1).unwrap();
        // The second comes only when the first was taken: a reader that waits for a whole piece would never end.
        let (read, _) = read_ahead(Slow(given), |ahead| {
            let mut one = [0];
            ahead.read_exact(&mut one)?;
            give.send(2).map_err(io::Error::other)?;
            drop(give);
            ahead.read_exact(&mut one).map(|()| one)
        });
        assert_eq!(read.unwrap(), [2]);
    }
}
