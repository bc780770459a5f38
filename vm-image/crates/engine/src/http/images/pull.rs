//! `POST /images/create?fromImage=`: `docker pull`.
//!
//! What is wrong with the name or with who asks is a status; what goes wrong after that is an object of the stream. The
//! pull ends when its client goes.

use std::sync::Arc;

use bytes::Bytes;
use caisson_images::registry::Credentials;
use caisson_images::{Digest, FindError, Found, Platform, PullError, Pulled, Reference};
use tokio::sync::mpsc;

use super::progress::{error_line, line, relay};
use super::tell_name;
use crate::engine::Engine;
use crate::error::{ApiError, chain};
use crate::http::call::Call;
use crate::http::containers::create::platform;
use crate::http::reply::{self, Reply};
use crate::images;

/// How many messages may wait for a slow client.
const BACKLOG: usize = 64;

pub(super) async fn pull(call: Call) -> Result<Reply, ApiError> {
    let name = wanted(call.form.get("fromImage"), call.form.get("tag"))?;
    let platform = platform(call.form.get("platform"))?;
    let credentials = credentials(&call);
    let engine = call.engine;
    let puller = engine.puller.clone();
    let all = name.tag().is_none() && name.digest().is_none();
    let mut names = match all {
        true => puller.tags(&name, &credentials).await.map_err(|e| images::error(&e))?,
        false => vec![name.clone()],
    };
    if names.is_empty() {
        return Err(ApiError::not_found(format!("no tags found for {}", name.familiar_name())));
    }
    let first = names.remove(0);
    let found = puller.find(&first, platform.clone(), &credentials).await.map_err(|e| images::error(&e))?;
    let work = Work { engine, platform, credentials, name };
    Ok(reply::stream("application/json", |to| async move {
        if let Err(error) = work.run(found, names, &to).await {
            let error = images::error(&error);
            // The client may be gone.
            let _ = to.send(error_line(&error)).await;
        }
    }))
}

/// The name that `fromImage` and `tag` make: a tag may be a digest; without one, all tags are meant.
fn wanted(image: &str, tag: &str) -> Result<Reference, ApiError> {
    let name = Reference::parse(image).map_err(|e| ApiError::invalid(chain(&e)))?;
    if tag.is_empty() {
        return Ok(name.favour_digest());
    }
    match tag.parse::<Digest>() {
        Ok(digest) => Ok(name.with_digest(digest)),
        Err(_) => name.with_tag(tag).map_err(|e| ApiError::invalid(chain(&e))),
    }
}

/// Who asks: the `X-Registry-Auth` header. One that cannot be read is nobody, as in dockerd.
pub(crate) fn credentials(call: &Call) -> Credentials {
    let header = call.headers.get("x-registry-auth").and_then(|value| value.to_str().ok());
    header.and_then(|text| Credentials::from_header(text).ok()).unwrap_or_default()
}

struct Work {
    engine: Arc<Engine>,
    platform: Option<Platform>,
    credentials: Credentials,
    /// As it was asked for.
    name: Reference,
}

impl Work {
    async fn run(
        &self,
        found: Found,
        others: Vec<Reference>,
        to: &mpsc::Sender<Bytes>,
    ) -> Result<(), PullError> {
        let mut is_news = self.one(found, to).await?.is_news;
        for name in others {
            let found = self.engine.puller.find(&name, self.platform.clone(), &self.credentials).await?;
            is_news |= self.one(found, to).await?.is_news;
        }
        let what = match is_news {
            true => "Downloaded newer image for",
            false => "Image is up to date for",
        };
        let status = format!("Status: {what} {}", self.name.familiar());
        // The client may be gone.
        let _ = to.send(line(&serde_json::json!({"status": status}))).await;
        if let Some(status) = self.other_platform() {
            // As above.
            let _ = to.send(line(&serde_json::json!({"status": status}))).await;
        }
        Ok(())
    }

    /// What is told of an image that is for another platform than was asked for, when its name leads to no other.
    fn other_platform(&self) -> Option<String> {
        let name = self.name.clone().or_latest().familiar();
        match self.engine.images.find_for(&name, self.platform.as_ref()) {
            Err(error @ FindError::Platform { .. }) => Some(format!("WARNING: {error}")),
            _ => None,
        }
    }

    async fn one(&self, found: Found, to: &mpsc::Sender<Bytes>) -> Result<Pulled, PullError> {
        let (told, messages) = mpsc::channel(BACKLOG);
        let fetch = async {
            let pulled = self.engine.puller.fetch(found, &told).await;
            drop(told);
            pulled
        };
        let (pulled, ()) = tokio::join!(fetch, relay(messages, to));
        let pulled = pulled?;
        let digest = format!("Digest: {}", pulled.digest);
        // The client may be gone.
        let _ = to.send(line(&serde_json::json!({"status": digest}))).await;
        tell_name(&self.engine, "pull", &pulled.id, &pulled.name);
        Ok(pulled)
    }
}
