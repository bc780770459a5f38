//! Processes that were added to the container: `docker exec`.
//!
//! The shim itself makes them, not a helper program: it is a clone of the shim that becomes the process and reads what that is to be, so that
//! all which takes memory (JSON, the seccomp filter, the container's accounts) is in the clone, and goes with `execve`. What stays in the shim
//! is a few descriptors a process, as long as it runs. How it ended is a file in the bundle.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use caisson_runtime::Running;
use caisson_runtime::exec::{Exec as Recipe, Starting};
use caisson_shim::config::{SPEC_FILE, exec_file, exec_record};
use caisson_shim::proto::{ExitRecord, Reply, StartFailure, State, UnixNanos};
use caisson_sys::{memory, signal};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use crate::clients::{Clients, Streams, Whose};
use crate::exit;
use crate::input::Input;
use crate::output::{Outputs, StreamName};
use crate::shim::{DRAIN_WITHIN, done, failed, number, refused};
use crate::streams::{self, Ours};
use crate::time::now;

/// All added processes that have not ended, by a number that is never used twice.
#[derive(Debug)]
pub(crate) struct Execs {
    bundle: PathBuf,
    all: BTreeMap<u64, Exec>,
    next: u64,
}

/// One of them.
#[derive(Debug)]
struct Exec {
    id: String,
    terminal: bool,
    stage: Stage,
    input: Input,
    outputs: Outputs,
}

#[derive(Debug)]
enum Stage {
    /// On its way; who has asked for it, and what that gets.
    Starting {
        process: Starting,
        ours: Ours,
        client: u64,
        streams: Streams,
    },
    Running(Process),
    /// It has ended; what it wrote has not been read to the end.
    Draining {
        process: Process,
        code: i32,
        finished_at: UnixNanos,
        give_up_at: Instant,
    },
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    started_at: UnixNanos,
}

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) id: String,
    pub(crate) terminal: bool,
    pub(crate) size: Option<(u16, u16)>,
    pub(crate) streams: Streams,
}

/// What of an added process a wait was about.
#[derive(Debug, Clone, Copy)]
pub(crate) enum About {
    Report,
    Process,
    Input,
    Output(StreamName),
}

impl Execs {
    pub(crate) fn new(bundle: &Path) -> Self {
        Self { bundle: bundle.to_owned(), all: BTreeMap::new(), next: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Begins a process; `client` gets the answer when it has begun.
    pub(crate) fn start(
        &mut self,
        container: (&str, &Running),
        wish: Wish,
        client: u64,
        clients: &mut Clients,
    ) {
        if self.find(&wish.id).is_some() || exec_record(&self.bundle, &wish.id).exists() {
            return clients.reply(client, &refused("a process of this name was started already"));
        }
        match self.begin(container, &wish) {
            Ok((process, ours)) => {
                let stage = Stage::Starting { process, ours, client, streams: wish.streams };
                let (input, outputs) = (Input::NotYet, Outputs::unlogged());
                let exec = Exec { id: wish.id, terminal: wish.terminal, stage, input, outputs };
                self.all.insert(self.next, exec);
                self.next += 1;
                clients.expect(client);
            }
            Err(failure) => {
                self.note_failure(&wish.id, &failure);
                clients.reply(client, &Reply::Failed(failure));
            }
        }
    }

    fn begin(
        &self,
        (id, container): (&str, &Running),
        wish: &Wish,
    ) -> Result<(Starting, Ours), StartFailure> {
        let (stdio, ours) = streams::make(wish.terminal, wish.streams.stdin).map_err(failed)?;
        let recipe = Recipe {
            id,
            spec: &self.bundle.join(SPEC_FILE),
            process: &exec_file(&self.bundle, &wish.id),
            size: wish.size,
        };
        Ok((recipe.start(container, &stdio)?, ours))
    }

    /// What to watch, and for what.
    pub(crate) fn interests<'a>(&'a self, clients: &Clients, mut watch: impl FnMut(u64, About, PollFd<'a>)) {
        for (number, exec) in &self.all {
            match &exec.stage {
                Stage::Starting { process, .. } => {
                    watch(
                        *number,
                        About::Report,
                        PollFd::from_borrowed_fd(process.descriptor(), PollFlags::IN),
                    );
                    continue;
                }
                Stage::Running(process) => {
                    watch(
                        *number,
                        About::Process,
                        PollFd::from_borrowed_fd(process.pidfd.as_fd(), PollFlags::IN),
                    );
                }
                Stage::Draining { .. } => {}
            }
            if let Some(input) = exec.input.wants_to_write() {
                watch(*number, About::Input, PollFd::from_borrowed_fd(input, PollFlags::OUT));
            }
            for output in exec.outputs.open() {
                if clients.have_room(Whose::Exec(*number), output.name) {
                    let fd = PollFd::from_borrowed_fd(output.descriptor(), PollFlags::IN);
                    watch(*number, About::Output(output.name), fd);
                }
            }
        }
    }

    /// When something is to be done even if nothing happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadlines = self.all.values().filter_map(|exec| match &exec.stage {
            Stage::Draining { give_up_at, .. } => Some(*give_up_at),
            _ => None,
        });
        deadlines.min()
    }

    /// Does what a wait was about.
    pub(crate) fn handle(&mut self, number: u64, about: About, clients: &mut Clients) {
        match about {
            About::Report => self.listen(number, clients),
            About::Process => self.ended(number, clients),
            About::Input => self.with(number, |exec| exec.input.flush()),
            About::Output(name) => self.with(number, |exec| exec.pump(number, name, clients)),
        }
    }

    fn with(&mut self, number: u64, act: impl FnOnce(&mut Exec)) {
        if let Some(exec) = self.all.get_mut(&number) {
            act(exec);
        }
    }

    /// The process on its way has said something.
    fn listen(&mut self, number: u64, clients: &mut Clients) {
        let Some(exec) = self.all.get_mut(&number) else { return };
        let Stage::Starting { process, .. } = &mut exec.stage else { return };
        match process.listen() {
            Ok(None) => {}
            Ok(Some(added)) => {
                let Some(exec) = self.all.remove(&number) else { return };
                self.all.insert(number, exec.run(number, added.terminal, clients));
            }
            Err(failure) => self.failed(number, &failure, clients),
        }
    }

    fn failed(&mut self, number: u64, failure: &StartFailure, clients: &mut Clients) {
        let Some(exec) = self.all.remove(&number) else { return };
        self.note_failure(&exec.id, failure);
        if let Stage::Starting { client, .. } = exec.stage {
            clients.reply(client, &Reply::Failed(failure.clone()));
        }
        let told = Reply::Exited(exit::never_ran(failure.clone()));
        clients.finish(Whose::Exec(number), &told);
        self.rest();
    }

    fn note_failure(&self, id: &str, failure: &StartFailure) {
        self.write(id, &exit::never_ran(failure.clone()));
    }

    fn write(&self, id: &str, record: &ExitRecord) {
        if let Err(error) = exit::write(record, &exec_record(&self.bundle, id)) {
            eprintln!("write how an added process ended: {error}");
        }
    }

    fn ended(&mut self, number: u64, clients: &mut Clients) {
        let Some(exec) = self.all.remove(&number) else { return };
        let exec = exec.end(number, clients);
        self.all.insert(number, exec);
    }

    /// The end of the drain is the end of the process.
    pub(crate) fn settle(&mut self, clients: &mut Clients) {
        let over = |exec: &Exec| match &exec.stage {
            Stage::Draining { give_up_at, .. } => {
                exec.outputs.are_all_ended() || Instant::now() >= *give_up_at
            }
            _ => false,
        };
        let ended: Vec<u64> =
            self.all.iter().filter(|(_, exec)| over(exec)).map(|(number, _)| *number).collect();
        for number in &ended {
            let Some(exec) = self.all.remove(number) else { continue };
            let Stage::Draining { code, finished_at, .. } = exec.stage else { continue };
            let record = ExitRecord { code, finished_at, oom_killed: false, failure: None };
            self.write(&exec.id, &record);
            clients.finish(Whose::Exec(*number), &Reply::Exited(record));
        }
        if !ended.is_empty() {
            self.rest();
        }
    }

    /// Gives back what making processes took.
    fn rest(&self) {
        if self.all.is_empty() {
            memory::shrink();
        }
    }

    /// Ends them all, with their container.
    pub(crate) fn kill(&self) {
        const KILL: i32 = 9;
        for exec in self.all.values() {
            // One that cannot be killed has ended.
            let _ = signal::send(exec.pidfd(), KILL);
        }
    }

    /// Whether somebody's stdin takes more.
    pub(crate) fn has_room(&self, number: u64) -> bool {
        self.all.get(&number).is_none_or(|exec| exec.input.has_room())
    }

    pub(crate) fn typed(&mut self, number: u64, bytes: &[u8]) {
        self.with(number, |exec| exec.input.add(bytes));
    }

    /// As dockerd: an input ends with its client's; of a terminal, the client goes.
    pub(crate) fn stopped_typing(&mut self, number: u64, client: u64, clients: &mut Clients) {
        match self.all.get_mut(&number) {
            Some(exec) if !exec.terminal => exec.input.end(),
            _ => clients.detach(client),
        }
    }

    pub(crate) fn signal(&self, id: &str, signal: i32) -> Reply {
        match self.find(id) {
            Some((_, exec)) => done(signal::send(exec.pidfd(), signal)),
            None => refused("the process is not running"),
        }
    }

    pub(crate) fn resize(&self, id: &str, rows: u16, cols: u16) -> Reply {
        let terminal = self.find(id).and_then(|(_, exec)| match &exec.stage {
            Stage::Running(process) | Stage::Draining { process, .. } => process.terminal.as_ref(),
            Stage::Starting { .. } => None,
        });
        match terminal {
            Some(terminal) => done(caisson_runtime::resize(terminal.as_fd(), rows, cols)),
            None => refused("there is no terminal"),
        }
    }

    pub(crate) fn state(&self, id: &str) -> Reply {
        match self.find(id).map(|(_, exec)| &exec.stage) {
            Some(Stage::Starting { .. }) => Reply::State(State::Created),
            Some(Stage::Running(process) | Stage::Draining { process, .. }) => {
                Reply::State(State::Running { pid: number(process.pid), started_at: process.started_at })
            }
            None => match exit::read(&exec_record(&self.bundle, id)) {
                Some(record) => Reply::State(State::Exited(record)),
                None => refused("there is no such process"),
            },
        }
    }

    /// Answers when the process has ended.
    pub(crate) fn wait(&self, id: &str, client: u64, clients: &mut Clients) {
        match (self.find(id), exit::read(&exec_record(&self.bundle, id))) {
            (Some((number, _)), _) => clients.wait(client, Whose::Exec(number)),
            (None, Some(record)) => clients.reply(client, &Reply::Exited(record)),
            (None, None) => clients.reply(client, &refused("there is no such process")),
        }
    }

    fn find(&self, id: &str) -> Option<(u64, &Exec)> {
        self.all.iter().find(|(_, exec)| exec.id == id).map(|(number, exec)| (*number, exec))
    }
}

impl Exec {
    /// Its program runs: tells who asked for it, and connects the streams.
    fn run(mut self, number: u64, terminal: Option<OwnedFd>, clients: &mut Clients) -> Self {
        let Stage::Starting { process, ours, client, streams } = self.stage else { return self };
        self.input = ours.connect(terminal.as_ref(), &mut self.outputs).unwrap_or_else(|error| {
            eprintln!("connect an added process: {error}");
            Input::Closed
        });
        let Starting { pid, pidfd, .. } = process;
        let process = Process { pid, pidfd, terminal, started_at: now() };
        let pid = crate::shim::number(process.pid);
        let reply = Reply::Started { pid, started_at: process.started_at, steps: Vec::new() };
        if streams.stdin || streams.stdout || streams.stderr {
            clients.attach(client, &reply, Whose::Exec(number), streams);
        } else {
            clients.reply(client, &reply);
        }
        self.stage = Stage::Running(process);
        self
    }

    /// Its process has ended.
    fn end(mut self, number: u64, clients: &mut Clients) -> Self {
        self.stage = match self.stage {
            Stage::Running(process) => {
                let code = exit::reap(process.pidfd.as_fd()).unwrap_or_else(|error| {
                    eprintln!("reap an added process: {error}");
                    255
                });
                let give_up_at = Instant::now() + DRAIN_WITHIN;
                Stage::Draining { process, code, finished_at: now(), give_up_at }
            }
            other => other,
        };
        self.input = Input::Closed;
        for name in [StreamName::Stdout, StreamName::Stderr] {
            let framed = !self.terminal;
            self.outputs.drain(name, |name, bytes| clients.deliver(Whose::Exec(number), name, bytes, framed));
        }
        self
    }

    fn pump(&mut self, number: u64, name: StreamName, clients: &mut Clients) {
        let framed = !self.terminal;
        self.outputs.pump(name, |name, bytes| clients.deliver(Whose::Exec(number), name, bytes, framed));
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        match &self.stage {
            Stage::Starting { process, .. } => process.pidfd.as_fd(),
            Stage::Running(process) | Stage::Draining { process, .. } => process.pidfd.as_fd(),
        }
    }
}
