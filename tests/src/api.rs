//! Raw calls to an engine's API, one connection each. An answer that does not come, or does not end, is an error.

use std::io::{Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::bounded::LONGEST;

/// Calls to the engine behind one socket.
#[derive(Clone)]
pub struct Api {
    socket: PathBuf,
}

/// What the engine answered.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; an empty one is `null`.
    pub fn json(&self) -> Result<Value> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).with_context(|| String::from_utf8_lossy(&self.body).into_owned())
    }
}

impl Api {
    /// Calls to the engine behind `socket`.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// `GET path`.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.call(Method::GET, path, &[], Vec::new())
    }

    /// `DELETE path`.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.call(Method::DELETE, path, &[], Vec::new())
    }

    /// `POST path` with a JSON body, or with none if it is `null`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        match body {
            Value::Null => self.call(Method::POST, path, &[], Vec::new()),
            body => {
                let body = serde_json::to_vec(body)?;
                self.call(Method::POST, path, &[("content-type", "application/json")], body)
            }
        }
    }

    /// Any call.
    pub fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let told = format!("{method} {path} was not answered within {} s", LONGEST.as_secs());
        let exchange = self.exchange(method, path, headers, body);
        runtime.block_on(async { tokio::time::timeout(LONGEST, exchange).await.context(told)? })
    }

    /// `POST path` with a JSON body, and with `input` after it: the connection, with nothing read from it.
    pub fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
        input: &[u8],
    ) -> Result<std::os::unix::net::UnixStream> {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        let head = head("POST", path, headers, &length);
        let mut stream = self.connect()?;
        stream.write_all(&[head.as_bytes(), &body, input].concat())?;
        Ok(stream)
    }

    /// The same without input: the answer's head, and the raw stream that follows it.
    pub fn open(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<(String, std::os::unix::net::UnixStream)> {
        read_head(path, self.send(path, headers, body, &[])?)
    }

    /// `GET path`: the answer's head, and the raw stream that follows it.
    pub fn get_open(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(String, std::os::unix::net::UnixStream)> {
        let mut stream = self.connect()?;
        stream.write_all(head("GET", path, headers, "").as_bytes())?;
        read_head(path, stream)
    }

    /// A connection on which nothing is waited for longer than the longest call takes.
    fn connect(&self) -> Result<std::os::unix::net::UnixStream> {
        let stream = std::os::unix::net::UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(LONGEST))?;
        stream.set_write_timeout(Some(LONGEST))?;
        Ok(stream)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "docker");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::from(body)))?).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

fn head(method: &str, path: &str, headers: &[(&str, &str)], more: &str) -> String {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: docker\r\n{more}{headers}\r\n")
}

fn read_head(
    path: &str,
    mut stream: std::os::unix::net::UnixStream,
) -> Result<(String, std::os::unix::net::UnixStream)> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).with_context(|| format!("the head of the answer to {path}"))?;
        head.push(byte[0]);
    }
    Ok((String::from_utf8(head)?, stream))
}
