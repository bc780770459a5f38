//! Requests and replies on a shim's socket.
//!
//! Each connection carries one [`Request`] frame, answered by one [`Reply`] frame; only [`Request::Watch`] gets several. A frame is a little-endian `u32` length
//! and that many bytes of JSON, at most [`MAX_FRAME`]: the framing of `caisson-guest-proto`, so an async client uses its
//! codec with these types. Here is the blocking side.
//!
//! After [`Reply::Attached`] the connection is a raw stream:
//!
//! - shim to client: without a terminal Docker's multiplexed stream (8-byte headers: stream number 1 or 2, three zeros,
//!   big-endian length), with a terminal the bytes as they are. No backlog: bytes from the moment of `Attached` on. The shim closes the
//!   connection when the container's output has ended and is delivered.
//! - client to shim: raw input, if asked for. A half-close (or close) ends the input as dockerd does: with
//!   [`Stdin::Once`](crate::Stdin::Once) and no terminal the container's stdin is closed and output goes on;
//!   otherwise this client is detached, and the container's stdin stays open.
//!
//! A process that is added to the container ([`Request::Exec`]) has streams of the same kind, which are in no log. Its end is written to
//! [`exec_record`](crate::config::exec_record) before it is told, so that an engine that was away finds it. Processes that were added end with
//! the container at the latest, and before it.
//!
//! Detach keys are the engine's business: it sees the bytes first, and detaches by closing the connection.
//!
//! The order for a start without a lost byte: spawn the shim, `Attach` for every waiting client, then `Start`; `Wait` may be
//! asked at any time after the spawn. The shim exits by itself when the exit record is written, waits are answered and attached
//! clients have their bytes; a connection that fails after that means: read the exit record. If that is missing too, the shim
//! was killed (exit code 137 by dockerd's custom). The container usually died with it, by its parent-death signal; but a process that
//! changes its user itself, as `gosu` does, loses that. So whoever finds a killed shim **must** call
//! `caisson_runtime::cgroup::Cgroup::of(path)`'s `remove`, which kills what is left and clears away.

use std::io::{self, Read, Write};

pub use caisson_runtime::{Failure as StartFailure, FailureKind, Step};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The longest frame that either side accepts, in bytes of JSON.
pub const MAX_FRAME: usize = 1 << 20;

/// What a client asks of a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make the container and run its process. Answered by [`Reply::Started`] once the program is executing, or by
    /// [`Reply::Failed`], after which the shim cleans up and exits. A second `Start` is refused.
    Start,
    /// Turn this connection into the container's streams. Also before `Start`.
    Attach {
        /// Pass this client's bytes to the container's stdin.
        stdin: bool,
        /// Deliver stdout (with a terminal: its output).
        stdout: bool,
        /// Deliver stderr (with a terminal there is none).
        stderr: bool,
    },
    /// Send a signal to the container's first process. Answered by [`Reply::Done`]; refused if there is none.
    Signal {
        /// The signal's number.
        signal: i32,
    },
    /// Set the terminal's size; before `Start` it is remembered. Answered by [`Reply::Done`]; refused without a terminal.
    Resize {
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
    /// Answered by [`Reply::Exited`] when the process has ended (at once if it has).
    Wait,
    /// The same, with what happens on the way: answered by [`Reply::OomKills`] at once and each time that there are more, and then by
    /// [`Reply::Exited`], which is the only answer if the process has ended. A shim from before this request closes the connection without
    /// an answer, and takes [`Request::Wait`].
    Watch,
    /// Answered by [`Reply::State`].
    State,
    /// End a shim that has not been started. Answered by [`Reply::Done`]; refused once started.
    Discard,
    /// Add the process of [`exec_file`](crate::config::exec_file) to the running container. Answered by [`Reply::Started`] once its program
    /// is executing, after which the connection is a raw stream if any of the streams is asked for; or by [`Reply::Failed`].
    Exec {
        /// Names the process from now on.
        id: String,
        /// Whether it has a terminal, as its file says.
        terminal: bool,
        /// Lines and columns of its terminal at first, in place of what its file says.
        size: Option<(u16, u16)>,
        /// Pass this client's bytes to its stdin, which ends with them; without it there is `/dev/null`.
        stdin: bool,
        /// Deliver its stdout (with a terminal: its output).
        stdout: bool,
        /// Deliver its stderr.
        stderr: bool,
    },
    /// As [`Request::Wait`], for an added process.
    ExecWait {
        /// Its name.
        id: String,
    },
    /// As [`Request::State`], for an added process; one that is on its way is `Created`. Refused if there never was one of this name.
    ExecState {
        /// Its name.
        id: String,
    },
    /// As [`Request::Signal`], for an added process.
    ExecSignal {
        /// Its name.
        id: String,
        /// The signal's number.
        signal: i32,
    },
    /// As [`Request::Resize`], for an added process.
    ExecResize {
        /// Its name.
        id: String,
        /// Lines.
        rows: u16,
        /// Columns.
        cols: u16,
    },
}

/// What a shim answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The program runs.
    Started {
        /// The first process, as seen by the engine.
        pid: u32,
        /// When `execve` had succeeded.
        started_at: UnixNanos,
        /// What was done for it, if [`ShimConfig::trace`](crate::ShimConfig::trace) asks for that.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        steps: Vec<Step>,
    },
    /// The program could not be run.
    Failed(StartFailure),
    /// From here on this connection is a raw stream.
    Attached,
    /// Done; nothing to tell.
    Done,
    /// The process has ended.
    Exited(ExitRecord),
    /// What the kernel has killed in the container for want of memory.
    OomKills {
        /// How many processes since the start.
        count: u64,
    },
    /// Where the container stands.
    State(State),
    /// The request does not fit the container's state, or could not be read.
    Refused {
        /// Why, for a person.
        message: String,
    },
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Not started yet.
    Created,
    /// Running.
    Running {
        /// The first process, as seen by the engine.
        pid: u32,
        /// When it started.
        started_at: UnixNanos,
    },
    /// Ended, or failed to start.
    Exited(ExitRecord),
}

/// How a container ended; also the contents of [`ShimConfig::exit_record`](crate::ShimConfig::exit_record).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The exit code; 128 + n for a process killed by signal n; [`FailureKind::exit_code`] when it never ran.
    pub code: i32,
    /// When the process was seen to have ended.
    pub finished_at: UnixNanos,
    /// Whether the kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
    /// Why the program could not be run at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<StartFailure>,
}

/// A moment: nanoseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixNanos(pub u64);

/// A frame with its length in front, ready to be sent.
///
/// # Errors
/// If the message is longer than [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    check_length(length)?;
    let prefix = u32::try_from(length).expect("MAX_FRAME fits a u32");
    frame[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// Takes one whole frame off the front of `bytes`: the message and the frame's full length, or `None` if more bytes are needed.
///
/// # Errors
/// If the announced length is over `limit`, or the JSON is not a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> io::Result<Option<(T, usize)>> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*prefix) as usize;
    check_length_within(length, limit)?;
    match rest.get(..length) {
        Some(body) => Ok(Some((serde_json::from_slice(body)?, 4 + length))),
        None => Ok(None),
    }
}

/// Writes one frame, blocking.
///
/// # Errors
/// Whatever the stream says, or a message over [`MAX_FRAME`].
pub fn write_frame<T: Serialize>(stream: &mut impl Write, message: &T) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads one frame, blocking, and no byte more.
///
/// # Errors
/// Whatever the stream says (`UnexpectedEof` if it ends inside a frame or before one), an announced length over [`MAX_FRAME`],
/// or JSON that is not a `T`.
pub fn read_frame<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix)?;
    let length = u32::from_le_bytes(prefix) as usize;
    check_length(length)?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

fn check_length(length: usize) -> io::Result<()> {
    check_length_within(length, MAX_FRAME)
}

fn check_length_within(length: usize, limit: usize) -> io::Result<()> {
    if length > limit {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes is over the limit of {limit}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_length_and_json() {
        let frame = encode(&Request::Start).unwrap();
        assert_eq!(frame, b"\x07\0\0\0\"start\"");
        assert_eq!(read_frame::<Request>(&mut &frame[..]).unwrap(), Request::Start);
    }

    #[test]
    fn a_partial_frame_waits_for_more() {
        let frame = encode(&Request::Resize { rows: 24, cols: 80 }).unwrap();
        for end in 0..frame.len() {
            assert!(decode::<Request>(&frame[..end], MAX_FRAME).unwrap().is_none(), "{end} bytes");
        }
        let (request, used) = decode::<Request>(&frame, MAX_FRAME).unwrap().unwrap();
        assert_eq!((request, used), (Request::Resize { rows: 24, cols: 80 }, frame.len()));
    }

    #[test]
    fn a_long_frame_is_refused_before_it_is_read() {
        let announced = u32::try_from(MAX_FRAME + 1).unwrap().to_le_bytes();
        assert_eq!(
            read_frame::<Request>(&mut &announced[..]).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        assert!(decode::<Request>(&announced, MAX_FRAME).is_err());
        assert!(encode(&"x".repeat(MAX_FRAME)).is_err());
    }

    #[test]
    fn replies_survive_the_wire() {
        let failure = StartFailure { kind: FailureKind::NotFound, message: "exec: \"x\"".into() };
        let record = ExitRecord {
            code: 127,
            finished_at: UnixNanos(7),
            oom_killed: false,
            failure: Some(failure.clone()),
        };
        for reply in [
            Reply::Started { pid: 1, started_at: UnixNanos(u64::MAX), steps: Vec::new() },
            Reply::Failed(failure),
            Reply::Exited(record.clone()),
            Reply::OomKills { count: 2 },
            Reply::State(State::Exited(record)),
            Reply::Refused { message: "no".into() },
        ] {
            assert_eq!(read_frame::<Reply>(&mut &encode(&reply).unwrap()[..]).unwrap(), reply);
        }
    }

    /// A shim is older than the engine that found its container, or newer than the one that comes back. Frames as they were first spoken.
    #[test]
    fn what_an_older_side_says_is_understood() {
        for (frame, request) in [
            (r#""start""#, Request::Start),
            (r#""wait""#, Request::Wait),
            (r#""watch""#, Request::Watch),
            (r#""state""#, Request::State),
            (r#""discard""#, Request::Discard),
            (
                r#"{"attach":{"stdin":true,"stdout":true,"stderr":false}}"#,
                Request::Attach { stdin: true, stdout: true, stderr: false },
            ),
            (r#"{"signal":{"signal":15}}"#, Request::Signal { signal: 15 }),
            (r#"{"resize":{"rows":1,"cols":2}}"#, Request::Resize { rows: 1, cols: 2 }),
            (r#"{"exec_wait":{"id":"x"}}"#, Request::ExecWait { id: "x".into() }),
        ] {
            assert_eq!(serde_json::from_str::<Request>(frame).unwrap(), request);
            assert_eq!(serde_json::to_string(&request).unwrap(), frame, "an older shim has to understand it");
        }
        let started = r#"{"started":{"pid":7,"started_at":9}}"#;
        let reply = Reply::Started { pid: 7, started_at: UnixNanos(9), steps: Vec::new() };
        assert_eq!(serde_json::from_str::<Reply>(started).unwrap(), reply);
        assert_eq!(serde_json::to_string(&reply).unwrap(), started);
        let record = r#"{"code":3,"finished_at":1,"oom_killed":false}"#;
        assert_eq!(serde_json::from_str::<ExitRecord>(record).unwrap().code, 3);
    }
}
