//! A server that plays a registry: it answers as a test wants, and remembers what it was asked.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Reference;

/// The first byte of a client that tries TLS.
const TLS_HANDSHAKE: u8 = 0x16;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// `GET`.
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    /// The lines of its head, lower case.
    pub(crate) head: String,
    /// How many requests of this method for this path there were before.
    pub(crate) before: usize,
}

/// What comes of it.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// A status, lines of the head, and a body.
    Whole(u16, String, Vec<u8>),
    /// The connection ends without one.
    Reset,
    /// So many bytes are announced, these come, and then nothing for a minute.
    Stalls(u64, Vec<u8>),
}

impl Answer {
    /// No more than a status.
    pub(crate) fn status(status: u16) -> Self {
        Self::Whole(status, String::new(), Vec::new())
    }

    pub(crate) fn location(status: u16, location: &str) -> Self {
        Self::Whole(status, format!("Location: {location}\r\n"), Vec::new())
    }

    pub(crate) fn bytes(media_type: &str, bytes: &[u8]) -> Self {
        Self::Whole(200, format!("Content-Type: {media_type}\r\n"), bytes.to_vec())
    }
}

/// A running server. It ends with the test's process.
pub(crate) struct Played {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Played {
    pub(crate) fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<Asked>>>::default());
        let (answer, log) = (Arc::new(answer), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                // A connection that fails is what the tests are about.
                std::thread::spawn(move || drop(serve(stream, &*answer, &log)));
            }
        });
        Self { port, asked }
    }

    /// `127.0.0.1:<port>`.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub(crate) fn name(&self, rest: &str) -> Reference {
        Reference::parse(&format!("{}/{rest}", self.address())).unwrap()
    }

    /// The requests so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, answer: &dyn Fn(&Asked) -> Answer, log: &Mutex<Vec<Asked>>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    if reader.fill_buf()?.first() == Some(&TLS_HANDSHAKE) {
        return Ok(());
    }
    let mut asked = read(&mut reader)?;
    {
        let mut log = log.lock().unwrap();
        let same = |other: &&Asked| (&other.method, &other.path) == (&asked.method, &asked.path);
        asked.before = log.iter().filter(same).count();
        log.push(asked.clone());
    }
    let mut stream = reader.into_inner();
    match answer(&asked) {
        Answer::Reset => Ok(()),
        Answer::Whole(status, head, body) => {
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status} Status\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n"
            )?;
            if asked.method == "HEAD" { Ok(()) } else { stream.write_all(&body) }
        }
        Answer::Stalls(length, body) => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
            stream.write_all(&body)?;
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
    }
}

/// Reads a request, whose body nobody looks at.
fn read(from: &mut impl BufRead) -> io::Result<Asked> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut first = head.split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let head = head.to_lowercase();
    match head.contains("transfer-encoding: chunked") {
        true => pass_chunks(from)?,
        false => pass_counted(from, &head)?,
    }
    Ok(Asked { method, path, head, before: 0 })
}

fn pass_counted(from: &mut impl BufRead, head: &str) -> io::Result<()> {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    from.read_exact(&mut vec![0; length.unwrap_or_default()])
}

fn pass_chunks(from: &mut impl BufRead) -> io::Result<()> {
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        from.read_exact(&mut vec![0; length + 2])?;
        if length == 0 {
            return Ok(());
        }
    }
}
