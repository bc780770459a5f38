//! Makes containers of busybox with the real shim, and talks to it as the engine does.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use caisson_runtime::cgroup::Cgroup;
use caisson_runtime::defaults;
use caisson_shim::config::{CONFIG_FILE, LOG_FILE, SOCKET_FILE, SPEC_FILE, exec_file};
use caisson_shim::proto::{ExitRecord, Reply, Request, StartFailure, read_frame, write_frame};
use caisson_shim::{ExecProcess, LogFile, LogFormat, LogTarget, Rootfs, ShimConfig, Stdin};
use serde_json::{Value, json};

/// Whether containers can be made here. Says so if not.
pub(crate) fn able() -> bool {
    let root = rustix::process::geteuid().is_root();
    let busybox = Path::new(BUSYBOX).exists();
    if !(root && busybox) {
        eprintln!("skipped: needs root (have it: {root}) and {BUSYBOX} (have it: {busybox})");
    }
    root && busybox
}

const BUSYBOX: &str = "/bin/busybox";

/// The shim's program.
pub(crate) const SHIM: &str = env!("CARGO_BIN_EXE_caisson-shim");

/// A shim that has not answered by then never will.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// Everything of one container: its layers, its bundle, its shim.
pub(crate) struct Rig {
    directory: tempfile::TempDir,
    pub(crate) spec: Value,
    pub(crate) config: ShimConfig,
    /// What the shell does that becomes the shim.
    pub(crate) before: String,
}

/// A shim that has been spawned.
pub(crate) struct Shim {
    rig: Rig,
    pub(crate) process: Child,
}

impl Rig {
    /// A container as `docker run busybox ARGUMENTS` would have it, without a network.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["bundle", "upper", "work", "layer/bin", "layer/etc", "layer/tmp"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        fill(&at("layer"));
        let id = format!("caisson-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let config = ShimConfig {
            rootfs: Rootfs::Overlay { lower: vec![at("layer")], upper: at("upper"), work: at("work") },
            user: None,
            group_add: Vec::new(),
            shared_memory: None,
            trace: false,
            stdin: Stdin::Closed,
            log: LogTarget::File(LogFile {
                path: at("log"),
                format: LogFormat::Json,
                max_bytes: None,
                max_files: 1,
                compress: false,
                buffer: None,
                attributes: Default::default(),
            }),
            exit_record: at("exit.json"),
            id: id.clone(),
        };
        Self { directory, spec: spec(&id, arguments), config, before: String::new() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Changes the spec.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// Adds a file to the image.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        let path = self.path("layer").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub(crate) fn terminal(self) -> Self {
        self.with(|spec| spec["process"]["terminal"] = json!(true))
    }

    pub(crate) fn stdin(mut self, stdin: Stdin) -> Self {
        self.config.stdin = stdin;
        self
    }

    pub(crate) fn user(mut self, user: &str) -> Self {
        self.config.user = Some(user.into());
        self
    }

    pub(crate) fn mount(self, source: &Path, destination: &str, options: &[&str]) -> Self {
        let mount = json!({"destination": destination, "type": "bind", "source": source, "options": options});
        self.with(|spec| spec["mounts"].as_array_mut().unwrap().push(mount))
    }

    /// Spawns the shim, as the engine does.
    pub(crate) fn spawn(self) -> Shim {
        let bundle = self.path("bundle");
        fs::write(bundle.join(SPEC_FILE), self.spec.to_string()).unwrap();
        fs::write(bundle.join(CONFIG_FILE), serde_json::to_vec(&self.config).unwrap()).unwrap();
        let listener: OwnedFd = UnixListener::bind(bundle.join(SOCKET_FILE)).unwrap().into();
        let log = fs::File::create(bundle.join(LOG_FILE)).unwrap();
        let process = Command::new("/bin/sh")
            .args(["-c", &format!(r#"{} exec "$0" "$1" 3<&0 </dev/null"#, self.before), SHIM])
            .arg(&bundle)
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Shim { rig: self, process }
    }

    /// Runs the container to its end: what it wrote to stdout and stderr, and its exit code.
    pub(crate) fn run(self) -> (String, String, i32) {
        let mut shim = self.spawn();
        let streams = shim.attach(false);
        if let Err(failure) = shim.start() {
            return (String::new(), failure.message, failure.kind.exit_code());
        }
        let (stdout, stderr) = demultiplex(streams);
        let ended = shim.wait();
        shim.gone();
        (text(stdout), text(stderr), ended.code)
    }
}

impl Shim {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.rig.path(name)
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path("bundle").join(SOCKET_FILE)).unwrap();
        stream.set_read_timeout(Some(ANSWERS_WITHIN)).unwrap();
        stream
    }

    /// Adds a process to the container; its output, and nothing to read.
    pub(crate) fn exec(&self, id: &str, arguments: &[&str]) -> (Reply, UnixStream) {
        let mut process = self.rig.spec["process"].clone();
        process["args"] = json!(arguments);
        let file = exec_file(&self.path("bundle"), id);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let process = ExecProcess { process, user: None, group_add: Vec::new(), filter: None::<()> };
        fs::write(file, serde_json::to_vec(&process).unwrap()).unwrap();
        let (id, terminal, size) = (id.to_owned(), false, None);
        self.ask(&Request::Exec { id, terminal, size, stdin: false, stdout: true, stderr: true })
    }

    /// One request and its answer.
    pub(crate) fn ask(&self, request: &Request) -> (Reply, UnixStream) {
        let mut stream = self.connect();
        write_frame(&mut stream, request).unwrap();
        let reply =
            read_frame(&mut stream).unwrap_or_else(|error| panic!("{error}; the shim says: {}", self.says()));
        (reply, stream)
    }

    pub(crate) fn attach(&self, stdin: bool) -> UnixStream {
        let (reply, stream) = self.ask(&Request::Attach { stdin, stdout: true, stderr: true });
        assert_eq!(reply, Reply::Attached);
        stream
    }

    /// Starts the container; its first process' id.
    pub(crate) fn start(&self) -> Result<u32, StartFailure> {
        match self.ask(&Request::Start).0 {
            Reply::Started { pid, .. } => Ok(pid),
            Reply::Failed(failure) => Err(failure),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn wait(&self) -> ExitRecord {
        match self.try_wait() {
            Some(record) => record,
            // It had ended before we could ask, and told the file.
            None => serde_json::from_slice(&fs::read(self.path("exit.json")).unwrap()).unwrap(),
        }
    }

    fn try_wait(&self) -> Option<ExitRecord> {
        let mut stream = UnixStream::connect(self.path("bundle").join(SOCKET_FILE)).ok()?;
        write_frame(&mut stream, &Request::Wait).ok()?;
        match read_frame(&mut stream).ok()? {
            Reply::Exited(record) => Some(record),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the shim's own end, which must be a good one.
    pub(crate) fn gone(&mut self) {
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}; the shim says: {}", self.says());
        assert_eq!(self.says(), "");
    }

    pub(crate) fn cgroup(&self) -> Option<Cgroup> {
        Cgroup::of(self.rig.spec["linux"]["cgroupsPath"].as_str().map(Path::new))
    }

    pub(crate) fn says(&self) -> String {
        fs::read_to_string(self.path("bundle").join(LOG_FILE)).unwrap()
    }

    /// The log file's entries as (stream, text).
    pub(crate) fn log(&self) -> Vec<(String, String)> {
        let file = fs::read_to_string(self.path("log")).unwrap();
        let entries = file.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        entries
            .map(|entry| (entry["stream"].as_str().unwrap().into(), entry["log"].as_str().unwrap().into()))
            .collect()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        // A test that failed halfway leaves no container behind: it dies with its shim.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(cgroup) = self.cgroup() {
            cgroup.remove().unwrap();
        }
    }
}

/// Takes Docker's multiplexed stream apart, to its end.
pub(crate) fn demultiplex(mut stream: UnixStream) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut header = [0; 8];
    while stream.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes(header[4..].try_into().unwrap()) as usize;
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).unwrap();
        match header[..4] {
            [1, 0, 0, 0] => stdout.extend(bytes),
            [2, 0, 0, 0] => stderr.extend(bytes),
            ref other => panic!("header {other:?}"),
        }
    }
    (stdout, stderr)
}

pub(crate) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// Reads a raw stream until it holds `end`.
pub(crate) fn read_until(stream: &mut UnixStream, end: &str) -> String {
    let mut so_far = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&so_far).contains(end) {
        match stream.read(&mut byte) {
            Ok(1) => so_far.push(byte[0]),
            // A read with a time limit is not begun anew by the kernel.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&so_far)),
        }
    }
    text(so_far)
}

pub(crate) fn send(stream: &mut UnixStream, text: &str) {
    stream.write_all(text.as_bytes()).unwrap();
}

fn fill(layer: &Path) {
    fs::copy(BUSYBOX, layer.join("bin/busybox")).unwrap();
    let list = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
    for applet in text(list).lines().filter(|applet| *applet != "busybox") {
        symlink("busybox", layer.join("bin").join(applet)).unwrap();
    }
    fs::write(layer.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv/web:/bin/sh\n")
        .unwrap();
    fs::write(layer.join("etc/group"), "root:x:0:\nwww:x:34:\naudio:x:29:web\n").unwrap();
}

fn spec(id: &str, arguments: &[&str]) -> Value {
    let wanted = defaults::CAPABILITIES.into_iter().collect();
    let namespaces: Vec<_> = ["mount", "pid", "network", "ipc", "uts", "cgroup"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    json!({
        "ociVersion": "1.2.0",
        "hostname": "box",
        "root": {"path": "rootfs"},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": arguments,
            "env": [format!("PATH={}", defaults::PATH), "A=b"],
            "cwd": "/",
            "capabilities": defaults::capability_sets(&wanted, true),
            "oomScoreAdj": 0,
        },
        "mounts": defaults::mounts(defaults::SHM_SIZE),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": format!("/caisson-test/{id}"),
            "maskedPaths": defaults::masked_paths(),
            "readonlyPaths": defaults::readonly_paths(),
            "resources": {"devices": defaults::device_rules()},
            "seccomp": defaults::seccomp(&wanted, true).unwrap(),
        },
    })
}
