//! Where clients come in.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

/// How long the socket is left alone when a client could not be taken. It is ready all that time, and would be without end.
const REST: Duration = Duration::from_millis(100);

/// The listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    rests_until: Option<Instant>,
    /// The last client could not be taken, and this has been said.
    failing: bool,
}

impl Listener {
    /// `socket` must not block.
    pub(crate) fn new(socket: UnixListener) -> Self {
        Self { socket, rests_until: None, failing: false }
    }

    /// What to wait on, unless it is left alone.
    pub(crate) fn socket(&self, now: Instant) -> Option<&UnixListener> {
        self.rest(now).is_none().then_some(&self.socket)
    }

    /// Until when it is left alone.
    pub(crate) fn rest(&self, now: Instant) -> Option<Instant> {
        self.rests_until.filter(|until| *until > now)
    }

    /// Takes a client, if there is one. Why one cannot be taken (mostly that too many files are open) is said once, as long as it lasts.
    pub(crate) fn accept(&mut self, now: Instant) -> Option<UnixStream> {
        use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
        match self.socket.accept() {
            Ok((stream, _)) => {
                self.failing = false;
                Some(stream)
            }
            Err(error) if matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted) => None,
            Err(error) => {
                if !self.failing {
                    eprintln!("accept a client: {error}; it waits");
                }
                self.failing = true;
                self.rests_until = Some(now + REST);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_cannot_be_taken_is_left_alone_for_a_while() {
        let place = tempfile::tempdir().unwrap();
        // A socket that is connected can take nobody, and says so each time.
        let _keep = UnixListener::bind(place.path().join("socket")).unwrap();
        let connected = UnixStream::connect(place.path().join("socket")).unwrap();
        let mut listener = Listener::new(std::os::fd::OwnedFd::from(connected).into());
        let now = Instant::now();
        assert!(listener.socket(now).is_some());
        assert!(listener.accept(now).is_none() && listener.failing);
        assert!(listener.socket(now).is_none() && listener.rest(now) == Some(now + REST));
        assert!(listener.socket(now + REST).is_some() && listener.rest(now + REST).is_none());
    }
}
