//! Client and daemon, over a connection in memory.

use crate::{
    Answer, ApiError, Call, ContainerId, ContainerLogs, ContainerRemove, ContainerSummary, ErrorCode, Event,
    Host, ItemStream, LogChunk, LogStream, MachineLog, MachineLogText, MachineStatus, PortForwardStatus,
    Version,
    wire::{Ask, Hello, read_line, write_line},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, BufReader, DuplexStream},
    sync::mpsc,
};

/// A daemon of which a few calls are used here.
struct FakeHost {
    /// Told when a subscription was dropped.
    dropped: mpsc::UnboundedSender<()>,
}

struct TellDrop(mpsc::UnboundedSender<()>);

impl Drop for TellDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

fn nothing<T>() -> Result<T, ApiError> {
    Err(ApiError::new(ErrorCode::Internal, "not used here"))
}

impl Host for FakeHost {
    async fn machine_status(&self) -> Result<MachineStatus, ApiError> {
        nothing()
    }
    async fn machine_start(&self) -> Result<MachineStatus, ApiError> {
        nothing()
    }
    async fn machine_stop(&self) -> Result<MachineStatus, ApiError> {
        nothing()
    }
    async fn machine_restart(&self) -> Result<MachineStatus, ApiError> {
        nothing()
    }
    async fn machine_log(&self, args: MachineLog) -> Result<MachineLogText, ApiError> {
        Ok(MachineLogText { path: "/log".into(), text: format!("{} lines", args.tail) })
    }
    async fn version(&self) -> Result<Version, ApiError> {
        nothing()
    }
    async fn container_list(&self) -> Result<Vec<ContainerSummary>, ApiError> {
        nothing()
    }
    async fn container_start(&self, args: ContainerId) -> Result<(), ApiError> {
        Err(ApiError::new(ErrorCode::NotFound, format!("no such container: {}", args.id)))
    }
    async fn container_stop(&self, _args: ContainerId) -> Result<(), ApiError> {
        nothing()
    }
    async fn container_remove(&self, _args: ContainerRemove) -> Result<(), ApiError> {
        nothing()
    }
    async fn port_list(&self) -> Result<Vec<PortForwardStatus>, ApiError> {
        Ok(Vec::new())
    }
    async fn shutdown(&self) -> Result<(), ApiError> {
        nothing()
    }
    async fn events(&self) -> Result<ItemStream<Event>, ApiError> {
        let guard = TellDrop(self.dropped.clone());
        let endless = stream::pending().map(move |item| {
            let _ = &guard;
            item
        });
        Ok(stream::iter([Ok(Event::Ports(Vec::new()))]).chain(endless).boxed())
    }
    async fn container_logs(&self, args: ContainerLogs) -> Result<ItemStream<LogChunk>, ApiError> {
        let chunk = |text: &str| LogChunk { stream: LogStream::Stdout, text: text.into() };
        Ok(stream::iter([Ok(chunk(&args.id)), Ok(chunk("글"))]).boxed())
    }
}

struct Spoken {
    connection: BufReader<DuplexStream>,
    dropped: mpsc::UnboundedReceiver<()>,
}

async fn connect() -> Spoken {
    let (near, far) = tokio::io::duplex(256);
    let (dropped, told) = mpsc::unbounded_channel();
    tokio::spawn(async move { crate::serve(&FakeHost { dropped }, far).await });
    let mut connection = BufReader::new(near);
    let hello: Hello = read_line(&mut connection).await.unwrap().unwrap();
    assert_eq!(hello.protocol, crate::PROTOCOL);
    Spoken { connection, dropped: told }
}

impl Spoken {
    async fn say(&mut self, line: Value) {
        write_line(&mut self.connection, &line).await.unwrap();
    }

    async fn hear(&mut self) -> Option<Answer> {
        read_line(&mut self.connection).await.unwrap()
    }
}

#[tokio::test]
async fn calls_are_answered_one_after_the_other() {
    let mut spoken = connect().await;
    spoken.say(json!({"call": {"name": "machine_log", "args": {"source": "console", "tail": 7}}})).await;
    assert_eq!(spoken.hear().await, Some(Answer::Ok(json!({"path": "/log", "text": "7 lines"}))));
    spoken.say(json!({"call": {"name": "container_start", "args": {"id": "web"}}})).await;
    let Some(Answer::Error(error)) = spoken.hear().await else { panic!("it is refused") };
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::NotFound, "no such container: web"));
    spoken.say(json!({"call": {"name": "port_list"}})).await;
    assert_eq!(spoken.hear().await, Some(Answer::Ok(json!([]))));
}

#[tokio::test]
async fn a_subscription_gives_its_items_and_ends() {
    let mut spoken = connect().await;
    let args = json!({"id": "web", "tail": 10, "follow": false, "timestamps": false});
    spoken.say(json!({"subscribe": {"name": "container_logs", "args": args}})).await;
    assert_eq!(spoken.hear().await, Some(Answer::Item(json!({"stream": "stdout", "text": "web"}))));
    assert_eq!(spoken.hear().await, Some(Answer::Item(json!({"stream": "stdout", "text": "글"}))));
    assert_eq!(spoken.hear().await, Some(Answer::End {}));
}

#[tokio::test]
async fn hanging_up_ends_a_subscription() {
    let mut spoken = connect().await;
    spoken.say(json!({"subscribe": {"name": "events"}})).await;
    assert_eq!(spoken.hear().await, Some(Answer::Item(json!({"kind": "ports", "value": []}))));
    drop(spoken.connection);
    assert_eq!(spoken.dropped.recv().await, Some(()));
}

#[tokio::test]
async fn what_is_no_request_is_told_so_and_hung_up_on() {
    let mut spoken = connect().await;
    spoken.say(json!({"call": {"name": "format_all_disks"}})).await;
    let Some(Answer::Error(error)) = spoken.hear().await else { panic!("it is refused") };
    assert_eq!(error.code, ErrorCode::Invalid);
    assert_eq!(spoken.connection.read(&mut [0]).await.unwrap(), 0);
}

#[test]
fn a_call_travels_as_it_is_written() {
    let ask: Ask =
        serde_json::from_value(json!({"call": {"name": "container_stop", "args": {"id": "a"}}})).unwrap();
    assert_eq!(ask, Ask::Call(Call::ContainerStop(ContainerId { id: "a".into() })));
}

#[cfg(unix)]
#[tokio::test]
async fn a_daemon_of_another_version_can_only_be_ended() {
    for protocol in [crate::PROTOCOL - 1, crate::PROTOCOL + 1] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut stream = BufReader::new(stream);
                write_line(&mut stream, &json!({"protocol": protocol, "version": "9.9"})).await.unwrap();
                if let Ok(Some(asked)) = read_line::<Value>(&mut stream).await {
                    assert_eq!(asked, json!({"call": {"name": "shutdown"}}));
                    write_line(&mut stream, &json!({"ok": null})).await.unwrap();
                }
            }
        });
        let client = crate::Client::new(path);
        assert_eq!(client.version().await.unwrap_err().code, ErrorCode::VersionMismatch);
        client.shutdown().await.unwrap();
    }
}
