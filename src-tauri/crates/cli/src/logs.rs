//! `caisson logs`: read from the files themselves, for logs matter most when no daemon is left to ask.

use crate::report::{self, plain};
use caisson_app_api::{ApiError, ErrorCode, MachineLogText};
use caisson_os::{Follow, tail_lines};
use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    time::Duration,
};
use tokio::time::sleep;

/// How often a followed file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Prints the end of the file and, if asked, what is added to it, until interrupted or no longer read.
pub(crate) async fn print(path: &Path, tail: usize, follow: bool, json: bool) -> Result<(), ApiError> {
    let unreadable = |error: io::Error| {
        let text = format!("cannot read {}", path.display());
        ApiError::new(ErrorCode::Internal, text).with_detail(error.to_string())
    };
    if json && follow {
        let text = "a log that is followed never ends, so it is no JSON value";
        return Err(ApiError::new(ErrorCode::Invalid, text).with_detail("leave out --json or --follow"));
    }
    if json {
        let text = tail_lines(path, tail).map_err(unreadable)?;
        let shown = MachineLogText { path: path.display().to_string(), text };
        report::print(true, &shown, Vec::new);
        return Ok(());
    }
    if !path.exists() {
        eprintln!("There is no log yet: {}", path.display());
    }
    match copy(path, tail, follow).await {
        // Whoever read it has seen enough (`caisson logs | head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        copied => copied.map_err(unreadable),
    }
}

async fn copy(path: &Path, tail: usize, follow: bool) -> io::Result<()> {
    let (text, mut rest) = Follow::from_tail(path, tail)?;
    let mut output = io::stdout();
    // The machine's console may say anything. A file gets it as it is, a terminal without what it would obey.
    let shown = |text: String| match io::stdout().is_terminal() {
        true => plain(&text.replace('\r', "")),
        false => text,
    };
    output.write_all(shown(text).as_bytes())?;
    if !follow {
        return Ok(());
    }
    loop {
        output.flush()?;
        sleep(LOOK_EVERY).await;
        output.write_all(shown(rest.more()?).as_bytes())?;
    }
}
