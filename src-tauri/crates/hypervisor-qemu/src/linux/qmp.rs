//! QMP, as much of it as we need: greeting, capabilities, four commands, five events.
//!
//! <https://www.qemu.org/docs/master/interop/qmp-spec.html>. QEMU connects to a socket of ours, so there is no
//! moment at which we would have to guess whether its socket is there yet.

use std::io;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines, ReadHalf, WriteHalf, split,
};

/// Why QEMU cannot be talked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// The socket failed.
    #[error("qemu's control socket failed")]
    Io(#[from] io::Error),
    /// QEMU closed the socket.
    #[error("qemu closed its control socket")]
    Closed,
    /// QEMU wrote something that is not QMP.
    #[error("qemu wrote something on its control socket that is not qmp: {0}")]
    NotQmp(String),
}

/// The commands that we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Leave the negotiation.
    Capabilities,
    /// Let the processors run.
    Continue,
    /// Press the power button.
    PowerButton,
    /// Ask whether the processors run, and if not, why.
    QueryStatus,
}

impl Command {
    const fn name(self) -> &'static str {
        match self {
            Self::Capabilities => "qmp_capabilities",
            Self::Continue => "cont",
            Self::PowerButton => "system_powerdown",
            Self::QueryStatus => "query-status",
        }
    }
}

/// The number of a command, by which its answer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct CommandId(u64);

/// What QEMU says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// The answer to a command.
    Answer(CommandId, Result<Value, String>),
    /// Something happened.
    Event(Event),
    /// Something that does not concern us.
    Other,
}

/// The events that concern us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// The machine is off; why, in QEMU's word: "guest-shutdown", "guest-reset", "host-signal", …
    Shutdown(String),
    /// The processors were stopped.
    Stop,
    /// They run again.
    Resume,
    /// The guest's kernel said that it panicked.
    GuestPanicked,
    /// A write failed as the host's disk is full, and the processors were stopped for it.
    HostDiskFull,
}

/// A connection to QEMU.
pub(super) struct Qmp<S> {
    lines: Lines<BufReader<ReadHalf<S>>>,
    writer: WriteHalf<S>,
    last: u64,
}

impl<S: AsyncRead + AsyncWrite> Qmp<S> {
    /// Reads the greeting and leaves the negotiation.
    pub(super) async fn open(stream: S) -> Result<Self, QmpError> {
        let (reader, writer) = split(stream);
        let mut qmp = Self { lines: BufReader::new(reader).lines(), writer, last: 0 };
        let greeting = qmp.line().await?;
        if !serde_json::from_str::<Value>(&greeting).is_ok_and(|value| value.get("QMP").is_some()) {
            return Err(QmpError::NotQmp(greeting));
        }
        qmp.call(Command::Capabilities).await?.map_err(QmpError::NotQmp)?;
        Ok(qmp)
    }

    /// Sends a command; its answer comes with [`next`](Self::next).
    pub(super) async fn send(&mut self, command: Command) -> Result<CommandId, QmpError> {
        self.last += 1;
        let mut line = json!({ "execute": command.name(), "id": self.last }).to_string();
        line.push('\n');
        self.writer.write_all(line.as_bytes()).await?;
        Ok(CommandId(self.last))
    }

    /// What QEMU says next. May be dropped while waiting, without loss.
    pub(super) async fn next(&mut self) -> Result<Message, QmpError> {
        let line = self.line().await?;
        let said: Said = serde_json::from_str(&line).map_err(|_| QmpError::NotQmp(line))?;
        Ok(said.into())
    }

    /// Sends a command and waits for its answer; events before it are dropped, so only for the beginning.
    pub(super) async fn call(&mut self, command: Command) -> Result<Result<Value, String>, QmpError> {
        let sent = self.send(command).await?;
        loop {
            match self.next().await? {
                Message::Answer(id, answer) if id == sent => return Ok(answer),
                Message::Answer(..) | Message::Event(_) | Message::Other => {}
            }
        }
    }

    async fn line(&mut self) -> Result<String, QmpError> {
        self.lines.next_line().await?.ok_or(QmpError::Closed)
    }
}

/// A line of QEMU's.
#[derive(Deserialize)]
struct Said {
    id: Option<u64>,
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

impl From<Said> for Message {
    fn from(said: Said) -> Self {
        match said {
            Said { event: Some(event), data, .. } => event_of(&event, &data).map_or(Self::Other, Self::Event),
            Said { id: Some(id), error: Some(error), .. } => Self::Answer(CommandId(id), Err(error.desc)),
            Said { id: Some(id), returned: Some(value), .. } => Self::Answer(CommandId(id), Ok(value)),
            Said { .. } => Self::Other,
        }
    }
}

fn event_of(name: &str, data: &Value) -> Option<Event> {
    match name {
        "SHUTDOWN" => Some(Event::Shutdown(data["reason"].as_str().unwrap_or_default().into())),
        "STOP" => Some(Event::Stop),
        "RESUME" => Some(Event::Resume),
        "GUEST_PANICKED" => Some(Event::GuestPanicked),
        "BLOCK_IO_ERROR" if data["nospace"] == true && data["action"] == "stop" => Some(Event::HostDiskFull),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";

    /// A QEMU that says the greeting and the lines, and then ends.
    async fn qemu_that_says(lines: &str) -> (DuplexStream, DuplexStream) {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(lines.as_bytes()).await.unwrap();
        (ours, theirs)
    }

    #[tokio::test]
    async fn after_the_greeting_events_and_answers_are_told_apart() {
        let (ours, theirs) = qemu_that_says(&format!(
            "{GREETING}{}\n{}\n{}\n{}\n",
            r#"{"return": {}, "id": 1}"#,
            r#"{"timestamp": {}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}"#,
            r#"{"error": {"class": "GenericError", "desc": "no"}, "id": 2}"#,
            r#"{"timestamp": {}, "event": "RTC_CHANGE", "data": {"offset": 1}}"#,
        ))
        .await;
        let mut qmp = Qmp::open(ours).await.unwrap();
        assert_eq!(qmp.next().await.unwrap(), Message::Event(Event::Shutdown("guest-reset".into())));
        assert_eq!(qmp.next().await.unwrap(), Message::Answer(CommandId(2), Err("no".into())));
        assert_eq!(qmp.next().await.unwrap(), Message::Other);
        drop(theirs);
        assert!(matches!(qmp.next().await, Err(QmpError::Closed)));
    }

    #[tokio::test]
    async fn commands_are_lines_with_a_number() {
        let (ours, theirs) = qemu_that_says(&format!("{GREETING}{{\"return\": {{}}, \"id\": 1}}\n")).await;
        let mut qmp = Qmp::open(ours).await.unwrap();
        assert_eq!(qmp.send(Command::PowerButton).await.unwrap(), CommandId(2));
        let mut lines = BufReader::new(theirs).lines();
        let first: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!(first, json!({ "execute": "qmp_capabilities", "id": 1 }));
        let second: Value = serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap();
        assert_eq!(second, json!({ "execute": "system_powerdown", "id": 2 }));
    }

    #[tokio::test]
    async fn something_else_on_the_socket_is_recognised() {
        let (ours, _theirs) = qemu_that_says("SSH-2.0\n").await;
        assert!(matches!(Qmp::open(ours).await, Err(QmpError::NotQmp(line)) if line == "SSH-2.0"));
        let (ours, theirs) = qemu_that_says("").await;
        drop(theirs);
        assert!(matches!(Qmp::open(ours).await, Err(QmpError::Closed)));
    }

    #[test]
    fn only_a_full_disk_that_stopped_the_machine_is_a_full_disk() {
        let event = |data: Value| event_of("BLOCK_IO_ERROR", &data);
        assert_eq!(event(json!({ "nospace": true, "action": "stop" })), Some(Event::HostDiskFull));
        assert_eq!(event(json!({ "nospace": false, "action": "stop" })), None);
        assert_eq!(event(json!({ "nospace": true, "action": "report" })), None);
    }
}
