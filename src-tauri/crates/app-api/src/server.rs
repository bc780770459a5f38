//! The daemon's side of a connection.

use crate::{
    ApiError, ErrorCode, Host,
    calls::{self, Call, Subscribe},
    wire::{Answer, Ask, Hello, LineError, PROTOCOL, read_line, write_line},
};
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use serde_json::Value;
use std::pin::Pin;
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite, BufReader};
use tracing::debug;

/// The items of a subscription; an error is its last one. Dropping it ends the subscription.
pub type ItemStream<T> = Pin<Box<dyn Stream<Item = Result<T, ApiError>> + Send>>;

/// Items, as they travel.
pub type Items = ItemStream<Value>;

/// Lets `host` answer one call, for transports other than [`serve`].
pub async fn call(host: &impl Host, call: Call) -> Result<Value, ApiError> {
    calls::call(host, call).await
}

/// Lets `host` answer one subscription, for transports other than [`serve`].
pub async fn subscribe(host: &impl Host, subscribe: Subscribe) -> Result<Items, ApiError> {
    calls::subscribe(host, subscribe).await
}

/// Serves one connection until the client hangs up.
pub async fn serve(host: &impl Host, connection: impl AsyncRead + AsyncWrite + Send) {
    let (from, mut to) = tokio::io::split(connection);
    if let Err(error) = converse(host, &mut BufReader::new(from), &mut to).await {
        debug!(error = &error as &dyn std::error::Error, "client connection ended");
    }
}

async fn converse(
    host: &impl Host,
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), LineError> {
    write_line(to, &Hello { protocol: PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }).await?;
    loop {
        match read_line(from).await {
            Ok(None) => return Ok(()),
            Ok(Some(Ask::Call(call))) => answer(to, calls::call(host, call).await).await?,
            Ok(Some(Ask::Subscribe(ask))) => {
                return stream(to, from, calls::subscribe(host, ask).await).await;
            }
            Err(error @ LineError::Io(_)) => return Err(error),
            Err(error) => return write_line(to, &Answer::Error(error.into())).await,
        }
    }
}

async fn answer(
    to: &mut (impl AsyncWrite + Unpin),
    result: Result<Value, ApiError>,
) -> Result<(), LineError> {
    write_line(to, &result.map_or_else(Answer::Error, Answer::Ok)).await
}

/// Passes items on until they end or the client hangs up: it says nothing more, so anything that it does is that.
async fn stream(
    to: &mut (impl AsyncWrite + Unpin),
    from: &mut (impl AsyncRead + Unpin),
    items: Result<Items, ApiError>,
) -> Result<(), LineError> {
    let mut items = match items {
        Ok(items) => items,
        Err(error) => return write_line(to, &Answer::Error(error)).await,
    };
    let mut byte = [0];
    loop {
        let line = tokio::select! {
            item = items.next() => item,
            _ = from.read(&mut byte) => return Ok(()),
        };
        match line {
            Some(Ok(item)) => write_line(to, &Answer::Item(item)).await?,
            Some(Err(error)) => return write_line(to, &Answer::Error(error)).await,
            None => return write_line(to, &Answer::End {}).await,
        }
    }
}

/// A reply as it travels.
pub(crate) fn value(reply: impl Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(reply).map_err(|error| ApiError::from_error(ErrorCode::Internal, &error))
}

/// Items as they travel.
pub(crate) fn items<T: Serialize + 'static>(stream: ItemStream<T>) -> Items {
    Box::pin(stream.map(|item| item.and_then(value)))
}
