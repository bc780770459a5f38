//! A process' streams: its ends, which it is born with, and ours.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use caisson_runtime::Stdio;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::input::Input;
use crate::output::{Output, Outputs, StreamName};

/// Our ends of a process' pipes; of a terminal there are none before it is made.
#[derive(Debug, Default)]
pub(crate) struct Ours {
    stdin: Option<OwnedFd>,
    outputs: Option<(OwnedFd, OwnedFd)>,
}

/// Makes a process' streams. Without `stdin` it reads nothing.
pub(crate) fn make(terminal: bool, stdin: bool) -> io::Result<(Stdio, Ours)> {
    if terminal {
        return Ok((Stdio::Terminal, Ours::default()));
    }
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let (stdin, write) = if stdin {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        (File::open("/dev/null")?.into(), None)
    };
    let ((read_out, stdout), (read_err, stderr)) = (pipe()?, pipe()?);
    Ok((Stdio::Streams { stdin, stdout, stderr }, Ours { stdin: write, outputs: Some((read_out, read_err)) }))
}

impl Ours {
    /// Connects a process that has begun: its output, and its input, which is returned.
    pub(crate) fn connect(self, terminal: Option<&OwnedFd>, outputs: &mut Outputs) -> io::Result<Input> {
        if let Some((stdout, stderr)) = self.outputs {
            outputs.add(Output::new(StreamName::Stdout, unblocking(stdout)?));
            outputs.add(Output::new(StreamName::Stderr, unblocking(stderr)?));
        }
        if let Some(terminal) = terminal {
            let terminal = unblocking(terminal.try_clone()?)?;
            outputs.add(Output::new(StreamName::Stdout, terminal.try_clone()?));
            return Ok(Input::open(terminal));
        }
        self.stdin.map_or(Ok(Input::Closed), |stdin| Ok(Input::open(unblocking(stdin)?)))
    }
}

fn unblocking(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    rustix::io::ioctl_fionbio(&descriptor, true)?;
    Ok(descriptor)
}
