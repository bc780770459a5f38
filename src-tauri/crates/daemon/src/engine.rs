//! The engine in the machine, asked as any Docker client asks it: HTTP over an API stream.

pub(crate) mod containers;
pub(crate) mod logs;
mod watch;

pub(crate) use watch::watch_containers;

use crate::host::unavailable;
use bytes::Bytes;
use caisson_app_api::{ApiError, EngineVersion, ErrorCode};
use caisson_machine::{EngineStatus, MachineHandle, MachineState, MachineStatus};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use std::{error::Error, time::Duration};
use tokio::time::timeout;
use tracing::debug;

/// The longest answer that is taken: the list of many thousand containers.
const MAX_BODY_BYTES: usize = 32 << 20;

/// How long the engine may take to answer what it knows already.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Asks the engine. A connection a request: they are cheap, and none is ever stale.
///
/// Never starts the machine: looking at a window is no reason to boot.
#[derive(Clone)]
pub(crate) struct Engine {
    machine: MachineHandle,
}

impl Engine {
    pub(crate) fn new(machine: MachineHandle) -> Self {
        Self { machine }
    }

    /// The engine's versions.
    pub(crate) async fn version(&self) -> Result<EngineVersion, ApiError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Wire {
            version: String,
            api_version: String,
            #[serde(rename = "MinAPIVersion")]
            min_api_version: String,
            kernel_version: String,
            arch: String,
        }
        let wire: Wire = self.get("/version").await?;
        Ok(EngineVersion {
            version: wire.version,
            api_version: wire.api_version,
            min_api_version: wire.min_api_version,
            kernel: wire.kernel_version,
            arch: wire.arch,
        })
    }

    /// Asks for JSON.
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let body = async { whole(self.request(Method::GET, path).await?.into_body()).await };
        let body = timeout(ANSWER_LIMIT, body).await.unwrap_or_else(|_| Err(silent(path)))?;
        serde_json::from_slice(&body).map_err(|error| {
            ApiError::new(
                ErrorCode::EngineFailed,
                format!("the engine's answer to {path} cannot be understood"),
            )
            .with_detail(error.to_string())
        })
    }

    /// Asks for anything. An answer that is an error is one here, too; "not modified" is not.
    async fn request(&self, method: Method, path: &str) -> Result<Response<Incoming>, ApiError> {
        // One that boots would be waited for, and who asks here wants to know how things are now.
        if !answers(&self.machine.status().borrow()) {
            return Err(ApiError::new(ErrorCode::MachineNotRunning, "the machine is not running"));
        }
        let stream = self.machine.api_if_running().await.map_err(|error| unavailable(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection to the engine broke");
            }
        });
        let request =
            Request::builder().method(method).uri(path).header("host", "caisson").body(Empty::<Bytes>::new());
        let request = request.map_err(|error| ApiError::from_error(ErrorCode::Invalid, &error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        match response.status() {
            status if status.is_success() || status == StatusCode::NOT_MODIFIED => Ok(response),
            status => Err(refused(status, response.into_body()).await),
        }
    }
}

/// Whether the machine runs with its engine up.
fn answers(status: &MachineStatus) -> bool {
    status.state == MachineState::Running && status.engine == EngineStatus::Up
}

async fn whole(body: Incoming) -> Result<Bytes, ApiError> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(broken(&*error)),
    }
}

/// The engine's own words, with the code that its status stands for.
async fn refused(status: StatusCode, body: Incoming) -> ApiError {
    #[derive(Deserialize)]
    struct Wire {
        message: String,
    }
    let code = match status {
        StatusCode::NOT_FOUND => ErrorCode::NotFound,
        StatusCode::CONFLICT => ErrorCode::Conflict,
        StatusCode::BAD_REQUEST => ErrorCode::Invalid,
        _ => ErrorCode::EngineFailed,
    };
    let said = whole(body).await.ok().and_then(|body| serde_json::from_slice::<Wire>(&body).ok());
    ApiError::new(code, said.map_or_else(|| format!("the engine answered {status}"), |said| said.message))
}

fn silent(path: &str) -> ApiError {
    let text = format!("the engine did not answer {path} within {} s", ANSWER_LIMIT.as_secs());
    ApiError::new(ErrorCode::EngineFailed, text)
        .with_detail("`caisson logs` may say why; `caisson restart` helps")
}

fn broken(error: &(dyn Error + 'static)) -> ApiError {
    let text = ApiError::from_error(ErrorCode::EngineFailed, error);
    let detail = text.detail.map_or(text.message.clone(), |causes| format!("{}: {causes}", text.message));
    ApiError::new(ErrorCode::EngineFailed, "the connection to the engine broke").with_detail(detail)
}
