//! `caisson logs`: read from the files themselves, for logs matter most when no daemon is left to ask.

use crate::report::plain;
use caisson_app_api::{ApiError, ErrorCode};
use caisson_os::Follow;
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
    if json {
        return Err(ApiError::new(ErrorCode::Invalid, "a log has no JSON form"));
    }
    match copy(path, tail, follow).await {
        // Whoever read it has seen enough (`caisson logs | head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => {
            let text = format!("cannot read {}", path.display());
            Err(ApiError::new(ErrorCode::Internal, text).with_detail(error.to_string()))
        }
        Ok(()) => Ok(()),
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
