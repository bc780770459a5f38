//! Waits that end: nothing that a case waits for may keep it, and with it the whole suite, for ever.
//!
//! A command that is still there after [`LONGEST`] is killed; a case that is not over after [`CASE`] has failed, whatever it waits for.
//! After either the suite is given up, because what comes next would most likely wait as long for the same thing.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// How long a command may take that ends by itself: more than the slowest one in an emulated machine.
pub const LONGEST: Duration = Duration::from_secs(600);
/// How long what comes next of a conversation may take, wherever the other side is.
pub const LIMIT: Duration = Duration::from_secs(120);
/// How long a case may take. More than [`LONGEST`], so that a command that hangs is told by its own name; the soaks on a machine that is busy
/// with much else have taken more than a quarter of an hour.
const CASE: Duration = Duration::from_secs(1800);

/// What hung first, since when nothing new begins.
static HUNG: OnceLock<String> = OnceLock::new();

fn has_hung(what: &str) {
    eprintln!("{what}");
    // The first one counts.
    let _ = HUNG.set(what.to_owned());
}

/// A test that has failed when its time is over.
pub fn trial(name: String, run: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    let called = name.clone();
    Trial::test(name, move || {
        if let Some(what) = HUNG.get() {
            return Err(format!("not run, because {what}").into());
        }
        within(CASE, &called, run).map_err(|error| format!("{error:#}").into())
    })
}

/// Runs something on a thread of its own, which is left behind if it takes longer.
fn within(limit: Duration, name: &str, run: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let (ended, wait) = mpsc::channel();
    let runs = thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody waits any more for one that took too long.
        let _ = ended.send(run());
    })?;
    match wait.recv_timeout(limit) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => {
            let what = format!("{name} was not over after {} s", limit.as_secs());
            has_hung(&what);
            bail!(what)
        }
        // Only a panic ends it without a word.
        Err(RecvTimeoutError::Disconnected) => match runs.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => bail!("{name} ended without a result"),
        },
    }
}

/// Waits until something can be read from a file; false if that takes longer.
fn is_readable(file: impl AsFd, limit: Duration) -> Result<bool> {
    let limit = Timespec::try_from(limit)?;
    let mut files = [PollFd::new(&file, PollFlags::IN)];
    Ok(retry_on_intr(|| poll(&mut files, Some(&limit)))? > 0)
}

/// What kills a process that takes too long.
pub struct Watch(Arc<AtomicBool>);

impl Watch {
    /// Whether it had to.
    pub fn has_killed(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Kills a process that is still there after [`LONGEST`], and says that it did not do `what`.
pub fn watch(process: &Child, what: String) -> Result<Watch> {
    watch_for(process, what, LONGEST)
}

fn watch_for(process: &Child, what: String, limit: Duration) -> Result<Watch> {
    let pidfd = pidfd_open(Pid::from_child(process), PidfdFlags::empty())?;
    let killed = Arc::new(AtomicBool::new(false));
    let watch = Watch(Arc::clone(&killed));
    thread::spawn(move || {
        if !is_readable(&pidfd, limit).unwrap_or(true) {
            killed.store(true, Ordering::SeqCst);
            has_hung(&format!("{what} did not end within {} s", limit.as_secs()));
            // One that ended in this moment needs no signal.
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    });
    Ok(watch)
}

/// A command that is run to its end, which comes in time.
pub trait Bounded {
    /// [`Command::output`], with nothing on standard input. One that hangs is killed, and is an error.
    fn in_time(&mut self) -> Result<Output>;
}

impl Bounded for Command {
    fn in_time(&mut self) -> Result<Output> {
        output(self, LONGEST)
    }
}

fn output(command: &mut Command, limit: Duration) -> Result<Output> {
    let what = told(command);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.with_context(|| what.clone())?;
    let watch = watch_for(&child, what.clone(), limit)?;
    let output = child.wait_with_output()?;
    let said = || [&output.stderr[..], &output.stdout].concat();
    ensure!(
        !watch.has_killed(),
        "{what} did not end within {} s: {}",
        limit.as_secs(),
        String::from_utf8_lossy(&said())
    );
    Ok(output)
}

/// The program's name and its arguments.
pub fn told(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program.file_name().unwrap_or(command.get_program()).to_string_lossy().into_owned();
    command.get_args().fold(name, |all, argument| all + " " + &argument.to_string_lossy())
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let give_up = Instant::now() + LIMIT;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(Instant::now() < give_up, "{what}: not within {} s", LIMIT.as_secs());
        // There is no event for that: asking again is the only way to know.
        thread::sleep(Duration::from_millis(10));
    }
}

/// The next client, from whom what is awaited has to come in time as well.
pub fn accept(listener: &TcpListener, what: &str) -> Result<(TcpStream, SocketAddr)> {
    ensure!(is_readable(listener, LIMIT)?, "{what}: nobody came within {} s", LIMIT.as_secs());
    let (client, from) = listener.accept()?;
    client.set_read_timeout(Some(LIMIT))?;
    client.set_write_timeout(Some(LIMIT))?;
    Ok((client, from))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn what_hangs_is_ended_and_told() {
        let killed = output(Command::new("sleep").arg("1000"), SHORT).unwrap_err().to_string();
        assert!(killed.starts_with("sleep 1000 did not end within 0 s"), "{killed}");
        let late = within(SHORT, "late", || {
            thread::sleep(LONGEST);
            Ok(())
        });
        assert_eq!(late.unwrap_err().to_string(), "late was not over after 0 s");
        assert!(HUNG.get().is_some(), "and nothing begins after it");
    }

    #[test]
    fn what_ends_in_time_is_as_it_was() {
        let output = output(Command::new("sh").args(["-c", "echo out; exit 3"]), LIMIT).unwrap();
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"out\n"[..]));
        assert_eq!(within(LIMIT, "wrong", || bail!("why")).unwrap_err().to_string(), "why");
    }
}
