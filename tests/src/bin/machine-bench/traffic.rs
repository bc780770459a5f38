//! The host's end of `tests/fixtures/traffic.c`, which says how both ends speak.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// What is written or read at once.
const PIECE: usize = 256 << 10;
/// A guest that says nothing for so long is broken.
const LIMIT: Duration = Duration::from_secs(120);

/// Which way bytes go, as a client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the client.
    Get,
    /// To the server.
    Put,
}

impl Way {
    /// Its letter.
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Get => 'g',
            Self::Put => 'p',
        }
    }
}

/// Asks a server in the guest once; how long it took from before the connection.
pub(crate) fn ask(server: SocketAddr, way: Way, bytes: u64) -> Result<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(&[&[way.letter() as u8][..], &bytes.to_le_bytes()].concat())?;
    match way {
        Way::Get => take(&mut stream, bytes)?,
        Way::Put => {
            give(&mut stream, bytes)?;
            take(&mut stream, 1)?;
        }
    }
    Ok(begin.elapsed())
}

fn give(to: &mut TcpStream, mut bytes: u64) -> Result<()> {
    let piece = vec![0; PIECE];
    while bytes > 0 {
        let now = piece.len().min(usize::try_from(bytes)?);
        to.write_all(&piece[..now])?;
        bytes -= now as u64;
    }
    Ok(())
}

fn take(from: &mut TcpStream, mut bytes: u64) -> Result<()> {
    let mut piece = vec![0; PIECE];
    while bytes > 0 {
        let now = piece.len().min(usize::try_from(bytes)?);
        from.read_exact(&mut piece[..now])?;
        bytes -= now as u64;
    }
    Ok(())
}

/// A server on the host's loopback, which ends with the process; its port.
pub(crate) fn serve() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A client that breaks off has said so itself.
            thread::spawn(move || drop(answer(client)));
        }
    });
    Ok(port)
}

fn answer(mut client: TcpStream) -> Result<()> {
    client.set_nodelay(true)?;
    let mut request = [0; 9];
    client.read_exact(&mut request)?;
    let bytes = u64::from_le_bytes(request[1..].try_into().context("eight bytes")?);
    if request[0] == b'g' {
        give(&mut client, bytes)?;
    } else {
        take(&mut client, bytes)?;
        client.write_all(&[1])?;
    }
    Ok(client.shutdown(Shutdown::Write)?)
}
