//! Bytes on their way to a client that does not take them all at once.

use std::io::{self, IoSlice, Write};

/// How much memory an empty queue keeps for the next time.
const KEPT: usize = 16 << 10;

/// What waits for a client.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    bytes: Vec<u8>,
    /// How many of them are gone. Never more than half of what is kept, or moving the rest to the front would cost more than it frees.
    sent: usize,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What waits, which does so no more.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let Self { mut bytes, sent } = std::mem::take(self);
        bytes.drain(..sent);
        bytes
    }

    /// Sends bytes, and keeps what is not taken: all of them if others wait before them. In the usual case nothing is copied.
    pub(crate) fn send(&mut self, head: &[u8], body: &[u8], to: &mut impl Write) -> io::Result<()> {
        let mut taken = 0;
        if self.is_empty() {
            taken = match to.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                Err(error) if is_for_later(&error) => 0,
                written => written?,
            };
        }
        self.bytes.extend_from_slice(head.get(taken..).unwrap_or_default());
        self.bytes.extend_from_slice(body.get(taken.saturating_sub(head.len())..).unwrap_or_default());
        Ok(())
    }

    /// Sends what the client takes now.
    pub(crate) fn flush(&mut self, to: &mut impl Write) -> io::Result<()> {
        while !self.is_empty() {
            match to.write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_for_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEPT);
            self.sent = 0;
        } else if self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then none until it is told to take more.
    struct Slow {
        room: usize,
        taken: Vec<u8>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let length = bytes.len().min(self.room);
            self.room -= length;
            self.taken.extend_from_slice(&bytes[..length]);
            Ok(length)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn whatever_is_taken_when_the_order_stays() {
        for room in 0..12 {
            let (mut slow, mut queue) = (Slow { room, taken: Vec::new() }, Queue::default());
            queue.send(b"head", b"body", &mut slow).unwrap();
            queue.send(b"", b"next", &mut slow).unwrap();
            assert_eq!(queue.len() + slow.taken.len(), 12, "room for {room}");
            while !queue.is_empty() {
                slow.room = 3;
                queue.flush(&mut slow).unwrap();
            }
            assert_eq!(slow.taken, b"headbodynext", "room for {room}");
        }
    }

    #[test]
    fn memory_is_bounded_by_what_waits() {
        let (mut slow, mut queue) = (Slow { room: 0, taken: Vec::new() }, Queue::default());
        queue.send(b"", &[0; 100_000], &mut slow).unwrap();
        for _ in 0..1000 {
            queue.send(b"", &[0; 1000], &mut slow).unwrap();
            slow.room = 1000;
            queue.flush(&mut slow).unwrap();
            assert!(queue.bytes.len() <= 2 * queue.len() + 1000, "{} for {}", queue.bytes.len(), queue.len());
        }
        slow.room = usize::MAX;
        queue.flush(&mut slow).unwrap();
        assert!(queue.is_empty() && queue.bytes.capacity() <= KEPT);
    }
}
