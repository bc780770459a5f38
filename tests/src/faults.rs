//! A proxy between an engine and its registry that does to answers what networks and busy servers do: cuts them off, flips
//! their bits, delays them, or answers itself. It listens on the engine's own loopback.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::registry::free_port;
use crate::subject::Subject;

/// The first byte of a client that speaks TLS, which the proxy does not.
const TLS_HANDSHAKE: u8 = 0x16;

/// What happens to an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing.
    None,
    /// It ends after so many bytes of its body, in the middle of the connection.
    Cut(usize),
    /// The byte at this place of its body is another one.
    Flip(usize),
    /// It comes later.
    Delay(Duration),
    /// It is this one: a status, headers and a body.
    Answer(u16, String, String),
    /// Of the request's body so many bytes arrive, and then the connection ends.
    CutUpload(usize),
}

/// A request, as far as a fault may depend on it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// `GET`.
    pub method: String,
    /// With its query.
    pub path: String,
    /// The head's lines, lower case.
    pub head: String,
    /// Its body.
    pub body: String,
    /// The bytes of its body.
    pub length: usize,
    /// Where the registry wants what follows the upload that was cut last.
    pub upload: String,
    /// How many requests for this path there were before.
    pub before: usize,
}

/// What a proxy remembers.
#[derive(Default)]
struct Seen {
    /// How often each request was made.
    counts: HashMap<String, usize>,
    upload: String,
}

type Decide = dyn Fn(&Asked) -> Fault + Send + Sync;

/// A running proxy. It ends with the test's process.
pub struct FaultyRegistry {
    port: u16,
}

impl FaultyRegistry {
    /// Stands in for the registry at `upstream` of the engine's loopback; `decide` chooses what happens.
    pub fn start(
        on: &dyn Subject,
        upstream: u16,
        decide: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start_at(on, free_port(), (Ipv4Addr::LOCALHOST, upstream), decide)
    }

    /// The same at a port that the engine has been told before, for a registry at any address.
    pub fn start_at(
        on: &dyn Subject,
        port: u16,
        upstream: (Ipv4Addr, u16),
        decide: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Result<Self> {
        let network = on.network().context("this engine's network cannot be entered from here")?;
        let (ready, listening) = mpsc::channel();
        let decide: Arc<Decide> = Arc::new(decide);
        // A thread of its own, since it moves into the engine's network, and its children with it.
        thread::spawn(move || {
            let listener = listen(&network, port);
            let listener = match listener {
                Ok(listener) => {
                    // The test waits for this.
                    let _ = ready.send(Ok(()));
                    listener
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return;
                }
            };
            let seen = Arc::new(Mutex::new(Seen::default()));
            for stream in listener.incoming().flatten() {
                let (decide, seen) = (Arc::clone(&decide), Arc::clone(&seen));
                // A connection that fails is what the tests are about.
                thread::spawn(move || drop(serve(stream, upstream, &*decide, &seen)));
            }
        });
        listening.recv()??;
        Ok(Self { port })
    }

    /// Its port on the engine's loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The name of something behind it.
    pub fn name(&self, what: &str) -> String {
        format!("127.0.0.1:{}/{what}", self.port)
    }
}

fn listen(network: &PathBuf, port: u16) -> Result<TcpListener> {
    move_into_link_name_space(File::open(network)?.as_fd(), Some(LinkNameSpaceType::Network))?;
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?)
}

/// One request and its answer; then the connection ends.
fn serve(
    mut client: TcpStream,
    upstream: (Ipv4Addr, u16),
    decide: &Decide,
    seen: &Mutex<Seen>,
) -> io::Result<()> {
    let (head, rest) = read_head(&mut client)?;
    let mut words = head.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let body = match header(&head, "transfer-encoding") {
        Some(_) => read_chunks(&mut client, rest)?,
        None => {
            let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
            read_to(&mut client, rest, length)?
        }
    };
    let (before, upload) = {
        let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = seen.counts.entry(format!("{method} {path}")).or_default();
        *count += 1;
        (*count - 1, seen.upload.clone())
    };
    let asked = Asked {
        method,
        path,
        head: head.to_lowercase(),
        body: String::from_utf8_lossy(&body).into_owned(),
        length: body.len(),
        upload,
        before,
    };
    let fault = decide(&asked);
    match &fault {
        Fault::Answer(status, headers, text) => {
            let length = text.len();
            write!(
                client,
                "HTTP/1.1 {status} Told\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
            )?;
            if asked.method != "HEAD" {
                client.write_all(text.as_bytes())?;
            }
            return Ok(());
        }
        Fault::Delay(pause) => thread::sleep(*pause),
        Fault::None | Fault::Cut(_) | Fault::Flip(_) | Fault::CutUpload(_) => {}
    }
    let arrives = match fault {
        Fault::CutUpload(length) => &body[..body.len().min(length)],
        _ => &body[..],
    };
    let mut server = TcpStream::connect(SocketAddr::from(upstream))?;
    let (first, others) = head.split_once("\r\n").unwrap_or((&head, ""));
    let own = ["connection:", "content-length:", "transfer-encoding:", "expect:"];
    let is_kept =
        |line: &&str| !own.iter().any(|own| line.to_lowercase().starts_with(own)) && !line.is_empty();
    let kept = others.split("\r\n").filter(is_kept);
    let begin = format!("{first}\r\nConnection: close\r\nContent-Length: {}\r\n", arrives.len());
    let head = kept.fold(begin, |head, line| head + line + "\r\n");
    server.write_all(head.as_bytes())?;
    server.write_all(b"\r\n")?;
    server.write_all(arrives)?;
    if let Fault::CutUpload(_) = fault {
        // The registry has what arrived; its client is not told.
        let (head, mut rest) = read_head(&mut server)?;
        server.read_to_end(&mut rest)?;
        let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        seen.upload = header(&head, "location").unwrap_or_default().to_owned();
        return Ok(());
    }
    answer(&mut server, &mut client, &fault)
}

/// Passes an answer on, with what is to happen to it.
fn answer(server: &mut TcpStream, client: &mut TcpStream, fault: &Fault) -> io::Result<()> {
    let (head, mut body) = read_head(server)?;
    client.write_all(head.as_bytes())?;
    client.write_all(b"\r\n\r\n")?;
    let is_success = head.split_whitespace().nth(1).is_some_and(|status| status.starts_with('2'));
    server.read_to_end(&mut body)?;
    match fault {
        Fault::Cut(at) if is_success => client.write_all(&body[..body.len().min(*at)]),
        Fault::Flip(at) if is_success && body.len() > *at => {
            body[*at] ^= 1;
            client.write_all(&body)
        }
        _ => client.write_all(&body),
    }
}

/// Reads on until there are so many bytes.
fn read_to(stream: &mut TcpStream, mut bytes: Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    let begun = bytes.len();
    bytes.resize(length.max(begun), 0);
    stream.read_exact(&mut bytes[begun..])?;
    Ok(bytes)
}

/// Reads a body in chunks, of which `bytes` have come.
fn read_chunks(stream: &mut TcpStream, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let Some(end) = bytes.windows(2).position(|two| two == b"\r\n") else {
            let more = bytes.len() + 1;
            bytes = read_to(stream, bytes, more)?;
            continue;
        };
        let length =
            std::str::from_utf8(&bytes[..end]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let length = length.ok_or(io::ErrorKind::InvalidData)?;
        bytes = read_to(stream, bytes.split_off(end + 2), length + 2)?;
        let rest = bytes.split_off(length + 2);
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&bytes[..length]);
        bytes = rest;
    }
}

/// The head without its empty line, and what came after it.
fn read_head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        if let Some(end) = end {
            let rest = bytes.split_off(end + 4);
            bytes.truncate(end);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&piece[..read]),
        }
        if bytes.first() == Some(&TLS_HANDSHAKE) {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
