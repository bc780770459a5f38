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
const SENDING: Duration = Duration::from_secs(3);
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

/// Prints this part's rows.
pub(crate) fn run(engines: &Pair) -> Result<()> {
    let setting = Setting { arguments: &["--userland-proxy=false"], ..Setting::default() };
    let without_proxy = Engine::start_with(Kind::Dockerd, setting)?;
    without_proxy.docker().load_images()?;
    let [ours, theirs] = engines.both();
    let ours = Figures::of(ours)?;
    for (name, theirs) in [("", Figures::of(theirs)?), (", no proxy", Figures::of(&without_proxy)?)] {
        for ((row, ours), (_, theirs)) in ours.0.iter().zip(&theirs.0) {
            measure::print(&format!("{row}{name}"), *ours, *theirs);
        }
    }
    Ok(())
}

/// The figures of one engine, by their rows' names.
struct Figures(Vec<(String, f64)>);

impl Figures {
    fn of(engine: &Engine) -> Result<Self> {
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
        let (server, client) = (pid("bench-server")?, pid("bench-client")?);
        let server = Server::start(within(engine, Some(&server))?)?;
        let mut figures = Vec::new();
        for (way, client, to) in [
            ("container to container", Some(client.as_str()), format!("{address}:{PORT}")),
            ("host to published port", None, format!("127.0.0.1:{PUBLISHED}")),
        ] {
            for (what, unit) in FIGURES {
                let output = within(engine, client)?.args([CLIENT, what, &to]).output()?;
                ensure!(output.status.success(), "{way}: {}", String::from_utf8_lossy(&output.stderr));
                let figure = String::from_utf8(output.stdout)?.trim().parse()?;
                figures.push((format!("{way}, {unit}"), figure));
            }
        }
        server.stop()?;
        docker.ok(["rm", "-f", "bench-server", "bench-client"])?;
        docker.ok(["network", "rm", "bench"])?;
        Ok(Self(figures))
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
