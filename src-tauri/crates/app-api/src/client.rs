//! The client's side: a connection a call.

use crate::{
    ApiError, Call, ErrorCode, Subscribe,
    connect::{self, LocalStream},
    wire::{Answer, Ask, Hello, PROTOCOL, read_line, write_line},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    io,
    marker::PhantomData,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{io::BufReader, time::timeout};

/// How long a daemon may take to say who it is, which it does before all else.
const HELLO_LIMIT: Duration = Duration::from_secs(10);

/// Asks the host daemon. Cheap to clone; holds no connection, so that a daemon may come and go.
///
/// Its typed calls (`machine_status` and so on) are made by [`calls`](crate::calls).
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: PathBuf,
}

impl Client {
    /// A client of the daemon at `endpoint`: the path of a unix socket or the name of a pipe. Does not connect yet.
    pub fn new(endpoint: impl Into<PathBuf>) -> Self {
        Self { endpoint: endpoint.into() }
    }

    /// Where the daemon is looked for.
    pub fn endpoint(&self) -> &Path {
        &self.endpoint
    }

    /// Whether a daemon answers that this client understands.
    pub async fn check(&self) -> Result<(), ApiError> {
        self.connect(Versions::Same).await.map(drop)
    }

    /// Asks for anything, untyped: what the window's bridge does.
    pub async fn call_value(&self, call: Call) -> Result<Value, ApiError> {
        let versions = if call == Call::Shutdown { Versions::Any } else { Versions::Same };
        let mut connection = self.connect(versions).await?;
        write_line(&mut connection, &Ask::Call(call)).await?;
        match read_line(&mut connection).await?.ok_or_else(hung_up)? {
            Answer::Ok(value) => Ok(value),
            Answer::Error(error) => Err(error),
            Answer::Item(_) | Answer::End {} => Err(misunderstood("a call was answered with items")),
        }
    }

    /// Subscribes to anything, untyped: what the window's bridge does.
    pub async fn subscribe_values(&self, subscribe: Subscribe) -> Result<Subscription<Value>, ApiError> {
        self.subscribe(subscribe).await
    }

    pub(crate) async fn call<T: DeserializeOwned>(&self, call: Call) -> Result<T, ApiError> {
        understood(self.call_value(call).await?)
    }

    pub(crate) async fn subscribe<T>(&self, subscribe: Subscribe) -> Result<Subscription<T>, ApiError> {
        let mut connection = self.connect(Versions::Same).await?;
        write_line(&mut connection, &Ask::Subscribe(subscribe)).await?;
        Ok(Subscription { connection, over: false, items: PhantomData })
    }

    async fn connect(&self, versions: Versions) -> Result<BufReader<LocalStream>, ApiError> {
        let stream = connect::connect(&self.endpoint).await.map_err(|error| {
            let at = self.endpoint.display();
            let detail = match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    "it is not running: `caisson start` starts it".to_owned()
                }
                _ => error.to_string(),
            };
            ApiError::new(ErrorCode::DaemonNotRunning, format!("no host daemon answers at {at}"))
                .with_detail(detail)
        })?;
        let mut connection = BufReader::new(stream);
        let hello = timeout(HELLO_LIMIT, read_line(&mut connection)).await.map_err(|_| self.stuck())?;
        let hello: Hello = hello?.ok_or_else(hung_up)?;
        match versions {
            Versions::Same if hello.protocol != PROTOCOL => Err(other_version(&hello)),
            Versions::Same | Versions::Any => Ok(connection),
        }
    }

    fn stuck(&self) -> ApiError {
        let (at, limit) = (self.endpoint.display(), HELLO_LIMIT.as_secs());
        ApiError::new(ErrorCode::Internal, format!("the host daemon at {at} said nothing for {limit} s"))
            .with_detail("it is stuck or stopped: end the process caisson-host, then try again")
    }
}

/// Which daemons will do. Every version knows how to end, or a new client could not get rid of an old daemon.
enum Versions {
    Same,
    Any,
}

/// The items of a subscription. Dropping it hangs up.
#[derive(Debug)]
pub struct Subscription<T> {
    connection: BufReader<LocalStream>,
    over: bool,
    items: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Subscription<T> {
    /// The next item; nothing once the daemon has ended the subscription. After an error comes nothing.
    ///
    /// Not cancel-safe: a future that is dropped may have read half an item.
    pub async fn next(&mut self) -> Option<Result<T, ApiError>> {
        if self.over {
            return None;
        }
        let item = self.read().await.transpose();
        self.over = !matches!(item, Some(Ok(_)));
        item
    }

    async fn read(&mut self) -> Result<Option<T>, ApiError> {
        match read_line(&mut self.connection).await?.ok_or_else(hung_up)? {
            Answer::Item(value) => understood(value).map(Some),
            Answer::End {} => Ok(None),
            Answer::Error(error) => Err(error),
            Answer::Ok(_) => Err(misunderstood("a subscription was answered like a call")),
        }
    }
}

fn understood<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| {
        misunderstood("the daemon's answer cannot be understood").with_detail(error.to_string())
    })
}

fn misunderstood(message: &str) -> ApiError {
    ApiError::new(ErrorCode::VersionMismatch, message)
}

fn hung_up() -> ApiError {
    ApiError::new(ErrorCode::DaemonNotRunning, "the host daemon hung up")
}

fn other_version(hello: &Hello) -> ApiError {
    let message = format!(
        "the host daemon is version {} (protocol {}), this is version {} (protocol {PROTOCOL})",
        hello.version,
        hello.protocol,
        env!("CARGO_PKG_VERSION")
    );
    ApiError::new(ErrorCode::VersionMismatch, message)
        .with_detail("`caisson stop` ends it, and `caisson start` starts the new one")
}
