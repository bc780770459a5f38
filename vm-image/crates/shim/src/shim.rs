//! The one loop: waits for clients, output, room for input, and the end of the container, and moves from stage to stage.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use caisson_runtime::spec::Spec;
use caisson_runtime::{Container, Running};
use caisson_shim::proto::{ExitRecord, Reply, Request, StartFailure, State, UnixNanos};
use caisson_shim::{ShimConfig, Stdin};
use caisson_sys::{memory, signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, Rlimit};

use crate::clients::{Clients, Event, Streams, Whose};
use crate::execs::{About, Execs, Wish};
use crate::exit;
use crate::input::Input;
use crate::listener::Listener;
use crate::log;
use crate::oom::OomKills;
use crate::output::{Outputs, StreamName};
use crate::streams;
use crate::time::now;

/// How long the container's output may stay open after its end, held by a process that is not the container's: as long as dockerd waits.
pub(crate) const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// How long the log may take for the rest before it is lost: dockerd's `loggerCloseTimeout`.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Where the container's root is mounted, in the bundle, until it is entered.
const MOUNT_AT: &str = "rootfs";

/// A container and the program that looks after it.
pub(crate) struct Shim {
    bundle: PathBuf,
    config: ShimConfig,
    listener: Listener,
    /// How many files the container may have open.
    open_files: Rlimit,
    terminal: bool,
    stage: Stage,
    clients: Clients,
    input: Input,
    outputs: Outputs,
    execs: Execs,
    oom_kills: OomKills,
}

enum Stage {
    /// What will be the container; and the size of its terminal, if a client has set one.
    Created {
        spec: Box<Spec>,
        size: Option<(u16, u16)>,
    },
    Running {
        container: Running,
        started_at: UnixNanos,
    },
    /// The process has ended; what it wrote has not been read to the end, or is not yet in the log.
    Draining {
        container: Running,
        started_at: UnixNanos,
        /// How it ended, as far as is known; it is on disk.
        record: ExitRecord,
        /// All has been read that will be.
        read: bool,
        give_up_at: Instant,
    },
    Exited(ExitRecord),
    /// Ended before it began.
    Discarded,
}

/// What a wait was about.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Process,
    Memory,
    Input,
    Output(StreamName),
    Log(log::About),
    Client(u64),
    Exec(u64, About),
}

impl Shim {
    pub(crate) fn new(
        bundle: PathBuf,
        config: ShimConfig,
        spec: Spec,
        listener: UnixListener,
        open_files: Rlimit,
    ) -> anyhow::Result<Self> {
        let terminal = spec.process.terminal;
        let outputs = Outputs::new(&config).context("open the log")?;
        Ok(Self {
            execs: Execs::new(&bundle),
            bundle,
            config,
            listener: Listener::new(listener),
            open_files,
            terminal,
            stage: Stage::Created { spec: Box::new(spec), size: None },
            clients: Clients::default(),
            input: Input::NotYet,
            outputs,
            oom_kills: OomKills::default(),
        })
    }

    /// Until the container has ended and everybody knows.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        while !self.is_over() {
            for (source, flags) in self.wait()? {
                self.handle(source, flags)?;
            }
            self.settle();
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        match self.stage {
            Stage::Created { .. } | Stage::Running { .. } | Stage::Draining { .. } => false,
            Stage::Exited(_) => self.clients.are_all_served() && self.outputs.are_written(),
            Stage::Discarded => self.clients.are_all_served(),
        }
    }

    fn wait(&self) -> anyhow::Result<Vec<(Source, PollFlags)>> {
        let now = Instant::now();
        let (mut sources, mut watched) = (Vec::new(), Vec::new());
        if let Some(socket) = self.listener.socket(now) {
            sources.push(Source::Listener);
            watched.push(PollFd::new(socket, PollFlags::IN));
        }
        if let Stage::Running { container, .. } = &self.stage {
            sources.push(Source::Process);
            watched.push(PollFd::new(&container.pidfd, PollFlags::IN));
        }
        if let Some(events) = self.oom_kills.descriptor() {
            sources.push(Source::Memory);
            watched.push(PollFd::from_borrowed_fd(events, PollFlags::PRI));
        }
        if let Some(input) = self.input.wants_to_write() {
            sources.push(Source::Input);
            watched.push(PollFd::from_borrowed_fd(input, PollFlags::OUT));
        }
        for output in self.outputs.open().iter().filter(|o| self.clients.have_room(Whose::Container, o.name))
        {
            sources.push(Source::Output(output.name));
            watched.push(PollFd::from_borrowed_fd(output.descriptor(), PollFlags::IN));
        }
        self.outputs.log_interests(|about, descriptor| {
            sources.push(Source::Log(about));
            watched.push(descriptor);
        });
        let typing = |whose| match whose {
            Whose::Container => self.input.has_room(),
            Whose::Exec(number) => self.execs.has_room(number),
        };
        for (id, stream, flags) in self.clients.interests(typing) {
            sources.push(Source::Client(id));
            watched.push(PollFd::new(stream, flags));
        }
        self.execs.interests(&self.clients, |number, about, descriptor| {
            sources.push(Source::Exec(number, about));
            watched.push(descriptor);
        });
        match poll(&mut watched, self.timeout(now).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("poll"),
        }
        let ready = sources.into_iter().zip(watched.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn timeout(&self, now: Instant) -> Option<Timespec> {
        let own = match &self.stage {
            Stage::Draining { give_up_at, .. } => Some(*give_up_at),
            _ => None,
        };
        let deadline = own.into_iter().chain(self.execs.deadline()).chain(self.listener.rest(now)).min()?;
        Timespec::try_from(deadline.saturating_duration_since(now)).ok()
    }

    fn handle(&mut self, source: Source, flags: PollFlags) -> anyhow::Result<()> {
        match source {
            Source::Listener => self.accept(),
            Source::Process => self.process_ended()?,
            Source::Input => self.input.flush(),
            Source::Output(name) => self.pump(name),
            Source::Memory => self.count_oom_kills(),
            Source::Log(about) => self.outputs.attend_log(about),
            Source::Client(id) => match self.clients.attend(id, flags) {
                Some(Event::Asked(request)) => self.serve(id, request),
                Some(Event::Typed(Whose::Container, bytes)) => self.input.add(&bytes),
                Some(Event::Typed(Whose::Exec(number), bytes)) => self.execs.typed(number, &bytes),
                Some(Event::StoppedTyping(Whose::Container)) => self.stopped_typing(id),
                Some(Event::StoppedTyping(Whose::Exec(number))) => {
                    self.execs.stopped_typing(number, id, &mut self.clients);
                }
                None => {}
            },
            Source::Exec(number, about) => self.execs.handle(number, about, &mut self.clients),
        }
        Ok(())
    }

    fn accept(&mut self) {
        if let Some(stream) = self.listener.accept(Instant::now())
            && let Err(error) = self.clients.add(stream)
        {
            eprintln!("accept a client: {error}");
        }
    }

    fn pump(&mut self, name: StreamName) {
        let (clients, framed) = (&mut self.clients, !self.terminal);
        self.outputs.pump(name, |name, bytes| clients.deliver(Whose::Container, name, bytes, framed));
    }

    /// As dockerd: an input that is used once ends with its client's, any other goes on without that client.
    fn stopped_typing(&mut self, id: u64) {
        if self.config.stdin == Stdin::Once && !self.terminal {
            self.input.end();
        } else {
            self.clients.detach(id);
        }
    }

    fn serve(&mut self, id: u64, request: Request) {
        match (request, &mut self.stage) {
            (Request::Start, Stage::Created { .. }) => {
                let reply = self.start();
                self.clients.reply(id, &reply);
            }
            (Request::Attach { stdin, stdout, stderr }, Stage::Created { .. } | Stage::Running { .. }) => {
                let stdin = stdin && self.config.stdin != Stdin::Closed;
                let streams = Streams { stdin, stdout, stderr };
                self.clients.attach(id, &Reply::Attached, Whose::Container, streams);
            }
            (Request::Wait | Request::Watch, Stage::Exited(record)) => {
                let reply = Reply::Exited(record.clone());
                self.clients.reply(id, &reply);
            }
            (Request::Wait, _) => self.clients.wait(id, Whose::Container),
            (Request::Watch, _) => {
                let reply = Reply::OomKills { count: self.oom_kills.count() };
                self.clients.watch(id, &reply);
            }
            (Request::State, _) => {
                let reply = Reply::State(self.state());
                self.clients.reply(id, &reply);
            }
            (Request::Discard, stage @ Stage::Created { .. }) => {
                *stage = Stage::Discarded;
                self.clients.finish(Whose::Container, &refused("the container has been discarded"));
                self.clients.reply(id, &Reply::Done);
            }
            (Request::Signal { signal }, Stage::Running { container, .. }) => {
                let reply = done(signal::send(container.pidfd.as_fd(), signal));
                self.clients.reply(id, &reply);
            }
            // It is dead already, and its log is being written.
            (Request::Signal { .. }, Stage::Draining { .. }) => self.clients.reply(id, &Reply::Done),
            (Request::Resize { rows, cols }, stage) => {
                let reply =
                    if self.terminal { resize(stage, rows, cols) } else { refused("there is no terminal") };
                self.clients.reply(id, &reply);
            }
            (
                Request::Exec { id: name, terminal, size, stdin, stdout, stderr },
                Stage::Running { container, .. },
            ) => {
                let streams = Streams { stdin, stdout, stderr };
                let wish = Wish { id: name, terminal, size, streams };
                self.execs.start((&self.config.id, container), wish, id, &mut self.clients);
            }
            (Request::ExecWait { id: name }, _) => self.execs.wait(&name, id, &mut self.clients),
            (Request::ExecState { id: name }, _) => {
                let reply = self.execs.state(&name);
                self.clients.reply(id, &reply);
            }
            (Request::ExecSignal { id: name, signal }, _) => {
                let reply = self.execs.signal(&name, signal);
                self.clients.reply(id, &reply);
            }
            (Request::ExecResize { id: name, rows, cols }, _) => {
                let reply = self.execs.resize(&name, rows, cols);
                self.clients.reply(id, &reply);
            }
            (Request::Start | Request::Discard, _) => {
                self.clients.reply(id, &refused("the container has been started already"));
            }
            (Request::Attach { .. } | Request::Signal { .. } | Request::Exec { .. }, _) => {
                self.clients.reply(id, &refused("the container is not running"));
            }
        }
    }

    fn state(&self) -> State {
        match &self.stage {
            Stage::Created { .. } | Stage::Discarded => State::Created,
            // While it drains, too: its end is not told before its output is.
            Stage::Running { container, started_at } | Stage::Draining { container, started_at, .. } => {
                State::Running { pid: number(container.pid), started_at: *started_at }
            }
            Stage::Exited(record) => State::Exited(record.clone()),
        }
    }

    fn start(&mut self) -> Reply {
        let Stage::Created { spec, size } = std::mem::replace(&mut self.stage, Stage::Discarded) else {
            return refused("the container has been started already");
        };
        match self.bear(&spec) {
            Ok(mut container) => {
                let started_at = now();
                let steps = std::mem::take(&mut container.steps);
                let pid = number(container.pid);
                self.oom_kills = OomKills::of(container.cgroup.as_ref());
                // Changes are told of from the first count on.
                self.count_oom_kills();
                self.stage = Stage::Running { container, started_at };
                drop(spec);
                memory::shrink();
                if let Some((rows, cols)) = size {
                    resize(&mut self.stage, rows, cols);
                }
                Reply::Started { pid, started_at, steps }
            }
            Err(failure) => {
                let record = exit::never_ran(failure.clone());
                self.write_down(&record);
                self.finish(record);
                Reply::Failed(failure)
            }
        }
    }

    fn bear(&mut self, spec: &Spec) -> Result<Running, StartFailure> {
        let (stdio, ours) =
            streams::make(self.terminal, self.config.stdin != Stdin::Closed).map_err(failed)?;
        let container = Container {
            id: &self.config.id,
            spec,
            rootfs: &self.config.rootfs,
            mount_at: &self.bundle.join(MOUNT_AT),
            user: self.config.user.as_deref(),
            group_add: &self.config.group_add,
            shared_memory: self.config.shared_memory.as_deref(),
            trace: self.config.trace,
            open_files: self.open_files,
        };
        let running = container.start(stdio)?;
        self.input = ours.connect(running.terminal.as_ref(), &mut self.outputs).map_err(failed)?;
        Ok(running)
    }

    fn process_ended(&mut self) -> anyhow::Result<()> {
        let Stage::Running { container, started_at } = std::mem::replace(&mut self.stage, Stage::Discarded)
        else {
            return Ok(());
        };
        let code = exit::reap(container.pidfd.as_fd()).context("reap the container")?;
        // Others of its processes live on where the pid namespace is not its own.
        if let Some(cgroup) = container.cgroup.as_ref().filter(|_| !container.owns_its_processes)
            && let Err(error) = cgroup.kill()
        {
            eprintln!("kill the container's processes: {error}");
        }
        self.execs.kill();
        self.input = Input::Closed;
        self.count_oom_kills();
        let oom_killed = self.oom_kills.count() > 0;
        let record = ExitRecord { code, finished_at: now(), oom_killed, failure: None };
        // The rest may take a while, in which the shim can be killed.
        self.write_down(&record);
        let (read, give_up_at) = (false, Instant::now() + DRAIN_WITHIN);
        self.stage = Stage::Draining { container, started_at, record, read, give_up_at };
        for name in [StreamName::Stdout, StreamName::Stderr] {
            let (clients, framed) = (&mut self.clients, !self.terminal);
            self.outputs.drain(name, |name, bytes| clients.deliver(Whose::Container, name, bytes, framed));
        }
        Ok(())
    }

    fn count_oom_kills(&mut self) {
        if self.oom_kills.recount() {
            self.clients.tell(&Reply::OomKills { count: self.oom_kills.count() });
        }
    }

    /// The end of the drain is the end of the container, and comes after that of every process that was added to it. What is read by then
    /// goes into the log first, if that takes it in time.
    fn settle(&mut self) {
        self.execs.settle(&mut self.clients);
        let Stage::Draining { read, give_up_at, .. } = &mut self.stage else { return };
        let now = Instant::now();
        if !*read {
            let quiet = self.outputs.are_all_ended() && self.execs.is_empty();
            if !quiet && now < *give_up_at {
                return;
            }
            self.outputs.end();
            (*read, *give_up_at) = (true, now + WRITE_WITHIN);
        }
        let gives_up = now >= *give_up_at;
        if gives_up {
            self.outputs.give_up_log();
        }
        if self.outputs.are_written() || gives_up {
            self.clear_away();
        }
    }

    /// Nothing of the container is left but how it ended.
    fn clear_away(&mut self) {
        // Of a process that was killed the end may be seen before the reason.
        self.count_oom_kills();
        let Stage::Draining { container, record, .. } = &self.stage else { return };
        let oom_killed = self.oom_kills.count() > 0;
        let is_news = oom_killed != record.oom_killed;
        let record = ExitRecord { oom_killed, ..record.clone() };
        self.oom_kills = OomKills::default();
        if let Some(Err(error)) = container.cgroup.as_ref().map(caisson_runtime::cgroup::Cgroup::remove) {
            eprintln!("remove the cgroup: {error}");
        }
        if is_news {
            self.write_down(&record);
        }
        self.finish(record);
    }

    fn write_down(&self, record: &ExitRecord) {
        if let Err(error) = exit::write(record, &self.config.exit_record) {
            eprintln!("write {}: {error}", self.config.exit_record.display());
        }
    }

    /// Tells everybody how it ended, which is on disk.
    fn finish(&mut self, record: ExitRecord) {
        self.outputs.end();
        self.clients.finish(Whose::Container, &Reply::Exited(record.clone()));
        self.stage = Stage::Exited(record);
    }
}

pub(crate) fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

pub(crate) fn failed(error: io::Error) -> StartFailure {
    StartFailure { kind: caisson_shim::proto::FailureKind::Other, message: error.to_string() }
}

fn resize(stage: &mut Stage, rows: u16, cols: u16) -> Reply {
    match stage {
        Stage::Created { size, .. } => {
            *size = Some((rows, cols));
            Reply::Done
        }
        Stage::Running { container, .. } => match &container.terminal {
            Some(terminal) => done(caisson_runtime::resize(terminal.as_fd(), rows, cols)),
            None => refused("there is no terminal"),
        },
        Stage::Draining { .. } | Stage::Exited(_) | Stage::Discarded => {
            refused("the container is not running")
        }
    }
}

pub(crate) fn done(result: io::Result<()>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(error) => refused(&error.to_string()),
    }
}

pub(crate) fn refused(message: &str) -> Reply {
    Reply::Refused { message: message.to_owned() }
}
