//! Networks: how much, how soon and how often, between containers and from the host to a published port.
//!
//! Both ends are this program again, run in the namespaces of the engine's containers: so nothing is measured but the way
//! between them. dockerd is measured with its userland proxy and, in rows of their own, without it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use caisson_tests::engine::{Engine, Kind, Setting};
use caisson_tests::subject::Subject;

use crate::measure::{self, Pair};

/// Where the server in the container listens, and where the host reaches it.
const PORT: &str = "5201";
const PUBLISHED: &str = "28600";
/// How long bytes are sent.
const SENDING: Duration = Duration::from_secs(1);
const CHUNK: usize = 128 * 1024;
const ROUND_TRIPS: usize = 2000;
const CONNECTIONS: usize = 1000;

const SERVER: &str = "--networks-server";
const CLIENT: &str = "--networks-client";

/// What a client does, and what its figure is.
const FIGURES: [(&str, &str); 3] =
    [("send", "Gbit/s"), ("ask", "round trip, µs"), ("connect", "connections a second")];

/// Runs one end, if that is what this process was started for.
pub(crate) fn end(args: &[String]) -> Option<Result<()>> {
    match args {
        [kind] if kind == SERVER => Some(serve()),
        [kind, what, to] if kind == CLIENT => Some(measure(what, to).map(|figure| println!("{figure}"))),
        _ => None,
    }
}

/// How often everything is measured, on all engines in turn; the median counts.
const ROUNDS: usize = 7;

/// Prints this part's rows.
pub(crate) fn run(engines: &Pair) -> Result<()> {
    let setting = Setting { arguments: &["--userland-proxy=false"], ..Setting::default() };
    let without_proxy = Engine::start_with(Kind::Dockerd, setting)?;
    without_proxy.docker().load_images()?;
    let [ours, theirs] = engines.both();
    let places = [ours, theirs, &without_proxy].map(Place::new);
    let places = places.into_iter().collect::<Result<Vec<_>>>()?;
    for (way, from) in [("container to container", Side::Container), ("host to published port", Side::Host)] {
        for (what, unit) in FIGURES {
            let mut figures = vec![Vec::new(); places.len()];
            for _ in 0..ROUNDS {
                for (place, figures) in places.iter().zip(&mut figures) {
                    figures.push(place.figure(from, what)?);
                }
            }
            let [ours, theirs, without_proxy] =
                &figures.into_iter().map(measure::middle).collect::<Vec<_>>()[..]
            else {
                bail!("three engines were measured");
            };
            let row = format!("{way}, {unit}");
            measure::print(&row, *ours, *theirs);
            measure::print(&format!("{row}, no proxy"), *ours, *without_proxy);
        }
    }
    places.into_iter().try_for_each(Place::end)
}

/// Where the client is.
#[derive(Clone, Copy)]
enum Side {
    Container,
    Host,
}

/// A server and a client in containers of an engine.
struct Place<'a> {
    engine: &'a Engine,
    /// The process that the client's container is of.
    client: String,
    /// The address of the server in its network.
    address: String,
    server: Server,
}

impl<'a> Place<'a> {
    fn new(engine: &'a Engine) -> Result<Self> {
        let docker = engine.docker();
        let publish = format!("127.0.0.1:{PUBLISHED}:{PORT}");
        docker.ok(["network", "create", "bench"])?;
        let run = |name: &str, more: &[&str]| {
            let run = ["run", "-d", "--name", name, "--network", "bench"];
            docker.ok([&run[..], more, &["busybox", "sleep", "100000"]].concat())
        };
        run("bench-server", &["-p", &publish])?;
        run("bench-client", &[])?;
        let pid = |name: &str| docker.ok(["inspect", "-f", "{{.State.Pid}}", name]);
        let address = "{{.NetworkSettings.Networks.bench.IPAddress}}";
        let address = docker.ok(["inspect", "-f", address, "bench-server"])?;
        let server = Server::start(within(engine, Some(&pid("bench-server")?))?)?;
        Ok(Self { engine, client: pid("bench-client")?, address, server })
    }

    fn figure(&self, from: Side, what: &str) -> Result<f64> {
        let (client, to) = match from {
            Side::Container => (Some(self.client.as_str()), format!("{}:{PORT}", self.address)),
            Side::Host => (None, format!("127.0.0.1:{PUBLISHED}")),
        };
        let output = within(self.engine, client)?.args([CLIENT, what, &to]).output()?;
        ensure!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }

    fn end(self) -> Result<()> {
        self.server.stop()?;
        let docker = self.engine.docker();
        docker.ok(["rm", "-f", "bench-server", "bench-client"])?;
        docker.ok(["network", "rm", "bench"])?;
        Ok(())
    }
}

/// This program, to be run in the network of a container, or in that of the engine.
fn within(engine: &Engine, container: Option<&str>) -> Result<Command> {
    let this = std::env::current_exe()?;
    Ok(match container {
        Some(pid) => {
            let mut command = engine.namespaces().command("nsenter");
            command.args(["--target", pid, "--net", "--"]).arg(this);
            command
        }
        None => engine.namespaces().command(this),
    })
}

/// A server that ends when its standard input does.
struct Server(Child);

impl Server {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.arg(SERVER).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it has no output")?).read_line(&mut line)?;
        ensure!(line == "ready\n", "the server did not start");
        Ok(Self(child))
    }

    fn stop(mut self) -> Result<()> {
        drop(self.0.stdin.take());
        ensure!(self.0.wait()?.success(), "the server failed");
        Ok(())
    }
}

fn serve() -> Result<()> {
    let listener = TcpListener::bind(format!("0.0.0.0:{PORT}"))?;
    println!("ready");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Takes all that comes, or says it back; a client that is gone is one less.
fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match stream.read(&mut buffer)? {
            0 => return stream.write_all(&kind),
            length if kind == *b"a" => stream.write_all(&buffer[..length])?,
            _ => {}
        }
    }
}

fn open(to: &str, kind: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

fn measure(what: &str, to: &str) -> Result<f64> {
    match what {
        "send" => {
            let (mut stream, chunk) = (open(to, b's')?, vec![0; CHUNK]);
            let begin = Instant::now();
            let mut sent = 0usize;
            while begin.elapsed() < SENDING {
                stream.write_all(&chunk)?;
                sent += chunk.len();
            }
            // The answer comes when all of it has arrived.
            stream.shutdown(std::net::Shutdown::Write)?;
            stream.read_exact(&mut [0])?;
            Ok(sent as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9)
        }
        "ask" => {
            let mut stream = open(to, b'a')?;
            let mut times = Vec::with_capacity(ROUND_TRIPS);
            for _ in 0..ROUND_TRIPS {
                let begin = Instant::now();
                stream.write_all(b"?")?;
                stream.read_exact(&mut [0])?;
                times.push(begin.elapsed());
            }
            Ok(measure::median(times) * 1000.0)
        }
        "connect" => {
            let begin = Instant::now();
            for _ in 0..CONNECTIONS {
                let mut stream = open(to, b'a')?;
                stream.write_all(b"?")?;
                stream.read_exact(&mut [0])?;
            }
            Ok(CONNECTIONS as f64 / begin.elapsed().as_secs_f64())
        }
        other => bail!("what is {other}?"),
    }
}
