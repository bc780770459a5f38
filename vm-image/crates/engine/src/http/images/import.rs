//! `POST /images/create?fromSrc=`: `docker import`, of the call's body or of what an address gives.
//!
//! An address that gives nothing is a status. What goes wrong after that is an object of the stream.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use caisson_images::registry::{Download, download};
use caisson_images::{Detail, ImportOptions, Progress};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::progress::{send, send_error, told};
use super::{reference, tell};
use crate::engine::Engine;
use crate::error::{ApiError, chain};
use crate::http::call::Call;
use crate::http::containers::create;
use crate::http::reply::{self, Reply};
use crate::images::{self, BodyReader};

/// How often a client is told how far a download is, as in dockerd.
const EVERY: Duration = Duration::from_millis(100);

/// The source that stands for the call's body.
const BODY: &str = "-";

pub(super) async fn import(call: Call) -> Result<Reply, ApiError> {
    let options = options(&call)?;
    let engine = call.engine;
    match call.form.get("fromSrc") {
        BODY => {
            let archive = BodyReader::new(call.body);
            Ok(streamed(move |to| make(&engine, archive, &options, to)))
        }
        address => {
            let found = download(engine.puller.config(), address).await.map_err(|e| images::error(&e))?;
            Ok(streamed(move |to| {
                send(to, &json!({"status": format!("Downloading from {}", found.url())}));
                make(&engine, Downloading::new(found, to.clone()), &options, to);
            }))
        }
    }
}

fn options(call: &Call) -> Result<ImportOptions, ApiError> {
    let form = &call.form;
    let target = match form.get("repo") {
        "" => None,
        repo => Some(reference(repo, form.get("tag"))?),
    };
    Ok(ImportOptions {
        reference: target,
        platform: create::platform(form.get("platform"))?,
        message: message(form.get("message"), form.get("fromSrc")),
        changes: form.all("changes"),
    })
}

/// What is remarked if the client remarks nothing, as in dockerd.
fn message(given: &str, source: &str) -> String {
    if given.is_empty() { format!("Imported from {source}") } else { given.to_owned() }
}

/// The stream that a blocking thread writes.
fn streamed(work: impl FnOnce(&mpsc::Sender<Bytes>) + Send + 'static) -> Reply {
    reply::stream("application/json", |to| async move {
        // A panic in there ends the stream, which the client sees.
        let _ = tokio::task::spawn_blocking(move || work(&to)).await;
    })
}

fn make(engine: &Engine, archive: impl Read + Send, options: &ImportOptions, to: &mpsc::Sender<Bytes>) {
    match engine.images.import(archive, options) {
        Ok(id) => {
            let id = id.to_string();
            if let Some(name) = &options.reference {
                tell(engine, "tag", &id, &name.familiar());
            }
            tell(engine, "import", &id, &id);
            send(to, &json!({"status": id}));
        }
        Err(error) => send_error(to, &images::error(&error)),
    }
}

/// A download that is read by a blocking thread, and tells how far it is.
struct Downloading {
    from: Download,
    runtime: Handle,
    current: Bytes,
    /// The bytes so far.
    read: u64,
    to: mpsc::Sender<Bytes>,
    told: Instant,
}

impl Downloading {
    fn new(from: Download, to: mpsc::Sender<Bytes>) -> Self {
        let (runtime, current) = (Handle::current(), Bytes::new());
        Self { from, runtime, current, read: 0, to, told: Instant::now() }
    }

    fn tell(&mut self) {
        self.told = Instant::now();
        let detail = Detail::Bytes { current: self.read, total: self.from.size().unwrap_or_default() };
        let progress = Progress { id: String::new(), status: "Importing".to_owned(), detail };
        // The work goes on when its client goes, as it does in dockerd.
        let _ = self.to.blocking_send(told(&progress));
    }
}

impl Read for Downloading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let next = self.runtime.block_on(self.from.next());
            let Some(bytes) = next.map_err(|error| io::Error::other(chain(&error)))? else {
                self.tell();
                return Ok(0);
            };
            self.read += bytes.len() as u64;
            self.current = bytes;
            if self.told.elapsed() >= EVERY {
                self.tell();
            }
        }
        let length = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use caisson_images::registry::RegistryConfig;

    use super::*;

    /// Answers one request with these bytes.
    fn serve(bytes: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", bytes.len()).unwrap();
            stream.write_all(bytes).unwrap();
        });
        address
    }

    #[tokio::test]
    async fn a_download_is_read_and_told_of() {
        let found = download(&RegistryConfig::default(), &serve(b"an archive")).await.unwrap();
        let (to, mut lines) = mpsc::channel(16);
        let read = tokio::task::spawn_blocking(move || {
            let mut all = Vec::new();
            Downloading::new(found, to).read_to_end(&mut all).map(|_| all)
        });
        assert_eq!(read.await.unwrap().unwrap(), b"an archive");
        let mut last = Bytes::new();
        while let Some(line) = lines.recv().await {
            last = line;
        }
        let last: serde_json::Value = serde_json::from_slice(&last).unwrap();
        assert_eq!(last["status"], "Importing");
        assert_eq!(last["progressDetail"], json!({"current": 10, "total": 10}));
    }

    #[test]
    fn an_import_says_where_it_came_from() {
        assert_eq!(message("", "-"), "Imported from -");
        assert_eq!(message("mine", "-"), "mine");
    }
}
