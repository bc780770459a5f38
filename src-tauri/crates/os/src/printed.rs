//! What a program of the system's prints, for as long as one can wait for it.

use std::{
    io::{self, Read},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

/// What is asked for is a page of text.
const MOST: u64 = 1 << 20;

/// Runs a program without input and gives what it prints.
///
/// # Errors
/// It does not start, or it prints on after `limit` ([`io::ErrorKind::TimedOut`]): a session bus that hangs holds up
/// `gsettings` for ever. It is killed then.
pub(crate) fn printed_by(command: &mut Command, limit: Duration) -> io::Result<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let stdout = child.stdout.take().expect("it is piped");
    let (tell, told) = mpsc::channel();
    let read = move || {
        let mut printed = Vec::new();
        let read = stdout.take(MOST).read_to_end(&mut printed);
        // Nobody waits any more: it took too long.
        let _ = tell.send(read.map(|_| printed));
    };
    let reader = thread::Builder::new().name("printed".into()).spawn(read);
    let printed = match reader {
        Ok(_) => told.recv_timeout(limit).unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        Err(error) => Err(error),
    };
    // One that has closed its output has nothing more to say; that it ended by itself is as well.
    let _ = child.kill();
    child.wait()?;
    Ok(String::from_utf8_lossy(&printed?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const SOON: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn all_that_a_program_prints_is_given() {
        let many = printed_by(&mut shell("seq 100000; echo unseen >&2"), SOON).unwrap();
        assert!(many.starts_with("1\n2\n") && many.ends_with("99999\n100000\n"), "{}", many.len());
        assert_eq!(printed_by(&mut shell("cat"), SOON).unwrap(), "", "it has no input");
        assert_eq!(
            printed_by(&mut Command::new("/nonexistent"), SOON).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let before = Instant::now();
        let mut hanging = shell("echo $$ >$PID.part; mv $PID.part $PID; echo begun; exec sleep 600");
        let error = printed_by(hanging.env("PID", &pid), Duration::from_secs(2)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() < SOON);
        if let Ok(pid) = std::fs::read_to_string(&pid) {
            let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
            assert!(rustix::process::test_kill_process(pid).is_err(), "it runs on");
        }
    }
}
