//! One run of a check's command.

use std::time::Duration;

use caisson_docker_api::container::HealthResult;
use caisson_docker_api::time::Timestamp;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tracing::debug;

use super::Check;
use crate::containers::attach::Streams;
use crate::containers::exec::{Begun, Exec, Wish};
use crate::containers::{Containers, Handle};
use crate::error::ApiError;

/// How much of the output is told.
const OUTPUT: usize = 4096;
/// How long a start may take, which does not count as the check's own time.
const STARTS_WITHIN: Duration = Duration::from_secs(30);
/// How long one that was killed may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
const KILL: i32 = 9;

/// Output up to [`OUTPUT`] bytes.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    cut: bool,
}

impl Output {
    fn add(&mut self, bytes: &[u8]) {
        let taken = &bytes[..bytes.len().min(OUTPUT - self.bytes.len())];
        self.bytes.extend_from_slice(taken);
        self.cut |= taken.len() < bytes.len();
    }

    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        if self.cut { format!("{text}...") } else { text.into_owned() }
    }
}

/// Runs the command once. `None` if `stop` came first; the command has been killed then.
pub(super) async fn probe(
    containers: &Containers,
    container: &Handle,
    check: &Check,
    stop: impl Future,
) -> Option<HealthResult> {
    let start = Timestamp::now();
    let told = match run(containers, container, check, stop).await {
        Ok(None) => return None,
        Ok(Some(told)) => told,
        Err(error) => {
            debug!(id = container.short_id(), %error, "a health check could not be run");
            (-1, error.message)
        }
    };
    let (exit_code, output) = told;
    Some(HealthResult { start, end: Timestamp::now(), exit_code, output })
}

async fn run(
    containers: &Containers,
    container: &Handle,
    check: &Check,
    stop: impl Future,
) -> Result<Option<(i32, String)>, ApiError> {
    let wish = Wish {
        command: check.command.clone(),
        tty: false,
        streams: Streams { stdin: false, stdout: true, stderr: true },
        detach_keys: Vec::new(),
        privileged: false,
        user: String::new(),
        working_dir: String::new(),
        env: Vec::new(),
        console_size: None,
    };
    let exec = containers.create_exec(container.clone(), &container.id, wish).await?;
    let outcome = watch(containers, &exec, check, stop).await;
    containers.forget_exec(&exec);
    outcome
}

async fn watch(
    containers: &Containers,
    exec: &std::sync::Arc<Exec>,
    check: &Check,
    stop: impl Future,
) -> Result<Option<(i32, String)>, ApiError> {
    let begun = tokio::time::timeout(STARTS_WITHIN, containers.start_exec(exec, true, None)).await;
    let begun = begun.map_err(|_| {
        ApiError::internal(format!("timed out starting health check for container {}", exec.container.id))
    })??;
    let mut output = Output::default();
    let reading = async {
        if let Begun::Attached(mut stream) = begun {
            // The end of the connection is the end of the output.
            let _ = read(&mut stream, &mut output).await;
        }
        exec.ended().await
    };
    let ended = tokio::select! {
        code = tokio::time::timeout(check.timeout, reading) => Some(code),
        _ = stop => None,
    };
    match ended {
        Some(Ok(code)) => Ok(Some((code, output.text()))),
        Some(Err(_)) => {
            kill(containers, exec).await;
            let limit = go_duration(check.timeout);
            let said = output.text();
            let colon = if said.is_empty() { "" } else { ": " };
            Ok(Some((-1, format!("Health check exceeded timeout ({limit}){colon}{said}"))))
        }
        None => {
            kill(containers, exec).await;
            Ok(None)
        }
    }
}

async fn kill(containers: &Containers, exec: &Exec) {
    if let Err(error) = containers.signal_exec(exec, KILL).await {
        debug!(exec = exec.id, %error, "a health check has ended by itself");
    }
    // One that is frozen with its container ends when that goes on.
    let _ = tokio::time::timeout(ENDS_WITHIN, exec.ended()).await;
}

/// Reads Docker's multiplexed stream to its end.
async fn read(stream: &mut UnixStream, output: &mut Output) -> std::io::Result<()> {
    let mut chunk = vec![0; 16 * 1024];
    loop {
        let mut header = [0; 8];
        stream.read_exact(&mut header).await?;
        let [.., a, b, c, d] = header;
        let mut left = u32::from_be_bytes([a, b, c, d]) as usize;
        while left > 0 {
            let room = left.min(chunk.len());
            let length = stream.read(&mut chunk[..room]).await?;
            if length == 0 {
                return Ok(());
            }
            output.add(&chunk[..length]);
            left -= length;
        }
    }
}

/// Go's `time.Duration` as text, for durations of a millisecond and more.
fn go_duration(duration: Duration) -> String {
    let number = |value: f64, unit: &str| format!("{value}{unit}");
    let seconds = duration.as_secs();
    if seconds == 0 {
        return number(duration.as_nanos() as f64 / 1e6, "ms");
    }
    let rest = (seconds % 60) as f64 + f64::from(duration.subsec_nanos()) / 1e9;
    match (seconds / 3600, seconds / 60 % 60) {
        (0, 0) => number(rest, "s"),
        (0, minutes) => format!("{minutes}m{}", number(rest, "s")),
        (hours, minutes) => format!("{hours}h{minutes}m{}", number(rest, "s")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (millis, text) in
            [(1, "1ms"), (1500, "1.5s"), (30_000, "30s"), (90_000, "1m30s"), (3_600_000, "1h0m0s")]
        {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn long_output_is_cut_and_says_so() {
        let mut output = Output::default();
        output.add(&[b'a'; 4000]);
        output.add(&[b'b'; 96]);
        assert_eq!(output.text().len(), 4096);
        output.add(b"c");
        assert!(output.text().ends_with("b..."));
    }
}
