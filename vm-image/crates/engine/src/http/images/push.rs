//! `POST /images/{name}/push`: `docker push`. The push ends when its client goes.

use tokio::sync::mpsc;

use caisson_images::{PushOptions, Reference};

use super::platform;
use super::progress::{error_line, relay};
use super::pull::credentials;
use super::tell_name;
use crate::error::{ApiError, chain};
use crate::http::call::Call;
use crate::http::reply::{self, Reply};
use crate::images;

/// How many messages may wait for a slow client.
const BACKLOG: usize = 64;

/// `POST /images/{name}/push`. Without a tag, all tags of the repository are meant.
pub(crate) async fn push(call: Call) -> Result<Reply, ApiError> {
    if !call.headers.contains_key("x-registry-auth") {
        return Err(ApiError::invalid("missing X-Registry-Auth: EOF"));
    }
    let name = Reference::parse(&call.name).map_err(|e| ApiError::invalid(chain(&e)))?;
    let name = match call.form.get("tag") {
        "" => name,
        tag => name.with_tag(tag).map_err(|e| ApiError::invalid(chain(&e)))?,
    };
    if name.digest().is_some() {
        return Err(ApiError::invalid("cannot push a digest reference"));
    }
    let options =
        PushOptions { name, platform: platform::asked(&call, 46)?, credentials: credentials(&call) };
    let engine = call.engine;
    Ok(reply::stream("application/json", |to| async move {
        let (told, messages) = mpsc::channel(BACKLOG);
        let work = async {
            let pushed = caisson_images::push(&engine.images, engine.puller.config(), &options, &told).await;
            drop(told);
            pushed
        };
        let (pushed, ()) = tokio::join!(work, relay(messages, &to));
        match pushed {
            Ok(pushed) => {
                pushed.iter().for_each(|one| tell_name(&engine, "push", &one.id, &one.name));
            }
            Err(error) => {
                // The client may be gone.
                let _ = to.send(error_line(&images::error(&error))).await;
            }
        }
    }))
}
