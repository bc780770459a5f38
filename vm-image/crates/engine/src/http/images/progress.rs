//! The stream of a pull or push: JSON objects, each with its `\r\n`, as dockerd's `jsonmessage` writes them.

use bytes::Bytes;
use caisson_images::{Detail, Progress};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::error::ApiError;

/// One object of a stream.
pub(super) fn line(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec(value).expect("the values here have string keys");
    text.extend_from_slice(b"\r\n");
    text.into()
}

/// What goes wrong after the first object.
pub(super) fn error_line(error: &ApiError) -> Bytes {
    line(&json!({"errorDetail": {"message": error.message}, "error": error.message}))
}

/// Sends an object from a blocking thread.
pub(super) fn send(to: &mpsc::Sender<Bytes>, value: &impl Serialize) {
    // The work goes on when its client goes, as it does in dockerd.
    let _ = to.blocking_send(line(value));
}

/// The same of what goes wrong.
pub(super) fn send_error(to: &mpsc::Sender<Bytes>, error: &ApiError) {
    // As above.
    let _ = to.blocking_send(error_line(error));
}

#[derive(Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    status: &'a str,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    detail: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aux: Option<Value>,
}

/// A message of the store, as clients get it.
pub(super) fn told(progress: &Progress) -> Bytes {
    let mut message =
        Message { status: &progress.status, detail: None, progress: None, id: &progress.id, aux: None };
    match progress.detail {
        Detail::Message => {}
        Detail::Step => message.detail = Some(json!({})),
        Detail::Bytes { current, total: 0 } => {
            message.detail = Some(json!({"current": current}));
            message.progress = Some(bar(current, 0));
        }
        Detail::Bytes { current, total } => {
            message.detail = Some(json!({"current": current, "total": total}));
            message.progress = Some(bar(current, total));
        }
        Detail::Pushed { digest, size } => {
            message.detail = Some(json!({}));
            message.aux = Some(json!({"Tag": progress.id, "Digest": digest, "Size": size}));
            message.id = "";
        }
    }
    line(&message)
}

/// Passes messages on until there are no more.
pub(super) async fn relay(mut from: mpsc::Receiver<Progress>, to: &mpsc::Sender<Bytes>) {
    while let Some(progress) = from.recv().await {
        if to.send(told(&progress)).await.is_err() {
            return;
        }
    }
}

/// The bar that old clients print, 50 wide, with the bytes as `docker` writes them.
fn bar(current: u64, total: u64) -> String {
    let done = human(current);
    if total == 0 {
        return format!("{done:>8}");
    }
    let half_percent = usize::try_from(current.saturating_mul(50) / total).unwrap_or(50).min(50);
    let bar = format!("[{}>{}] ", "=".repeat(half_percent), " ".repeat(50 - half_percent));
    match current > total {
        true => format!("{bar}{done:>8}"),
        false => format!("{bar}{done:>8}/{}", human(total)),
    }
}

/// Go's `units.HumanSize`: four digits, powers of 1000.
fn human(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1000.0 && unit < units.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    let digits = match size {
        size if size >= 999.95 => 0,
        size if size >= 99.995 => 1,
        size if size >= 9.9995 => 2,
        _ => 3,
    };
    let text = format!("{size:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_go_writes_them() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.234kB"),
            (32_768, "32.77kB"),
            (2_216_450, "2.216MB"),
            (123_456_789, "123.5MB"),
        ] {
            assert_eq!(human(bytes), text);
        }
        assert_eq!(bar(1, 2), format!("[{}>{}]       1B/2B", "=".repeat(25), " ".repeat(25)));
    }

    #[test]
    fn messages_are_written_as_docker_reads_them() {
        let of = |id: &str, detail| told(&Progress { id: id.into(), status: "Waiting".into(), detail });
        assert_eq!(
            of("a", Detail::Step),
            &b"{\"status\":\"Waiting\",\"progressDetail\":{},\"id\":\"a\"}\r\n"[..]
        );
        assert_eq!(of("", Detail::Message), &b"{\"status\":\"Waiting\"}\r\n"[..]);
    }
}
