//! docker-compose (Debian's 2.40) brings whole applications up and down.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::containers::wait_for_log;
use crate::bounded::{Bounded, until};
use crate::cases;
use crate::fixtures;
use crate::subject::Subject;

cases![
    an_application_of_three_services_comes_up_and_goes_without_a_trace,
    the_classic_file_of_three_nodes_runs,
    the_classic_file_may_lock_all_memory_where_its_system_may,
    its_lists_tell_of_an_application,
];

/// What only Caisson is held to: dockerd has no overlay without a swarm.
pub const OURS: &[crate::subject::Case] = &[crate::subject::Case {
    name: "a_file_for_an_overlay_comes_up_on_one_node",
    run: a_file_for_an_overlay_comes_up_on_one_node,
}];

/// One application: a file in a folder of its own.
struct Project<'a> {
    on: &'a dyn Subject,
    folder: TempDir,
    name: &'static str,
}

impl<'a> Project<'a> {
    fn new(on: &'a dyn Subject, name: &'static str, file: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("compose.yml"), file)?;
        Ok(Self { on, folder, name })
    }

    fn command(&self, args: &[&str]) -> Result<Command> {
        let docker = self.on.docker().command([""; 0])?;
        let mut command = Command::new(plugin()?);
        command.envs(docker.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["--progress", "plain", "--ansi", "never", "-p", self.name]);
        command.current_dir(self.folder.path()).args(args).stdin(Stdio::null());
        Ok(command)
    }

    /// The output of a command that has to succeed.
    fn ok(&self, args: &[&str]) -> Result<String> {
        let output = self.command(args)?.in_time()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "docker-compose {args:?}: {}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout).trim_end().to_owned())
    }

    /// Since when each of its containers runs, by its name.
    fn starts(&self) -> Result<BTreeMap<String, String>> {
        let ids = self.ok(&["ps", "-q"])?;
        let inspect = ["inspect", "-f", "{{.Name}} {{.State.StartedAt}}"].into_iter().chain(ids.lines());
        let told = self.on.docker().ok(inspect)?;
        let pairs = told.lines().filter_map(|line| line.strip_prefix('/')?.split_once(' '));
        Ok(pairs.map(|(name, time)| (name.to_owned(), time.to_owned())).collect())
    }

    /// Restarts a service: all of its containers run anew, and no other does.
    fn restart(&self, service: &str) -> Result<()> {
        let before = self.starts()?;
        self.ok(&["restart", "-t", "0", service])?;
        let after = self.starts()?;
        ensure!(before.keys().eq(after.keys()), "others run: {before:?}, then {after:?}");
        let of = |name: &str| self.on.docker().ok(["inspect", "-f", SERVICE, name]);
        for (name, time) in &before {
            let restarted = after[name] != *time;
            ensure!(
                restarted == (of(name)? == service),
                "{name} ran since {time}, then since {}",
                after[name]
            );
        }
        Ok(())
    }

    /// What is left of it: containers, networks, volumes.
    fn traces(&self) -> Result<String> {
        let docker = self.on.docker();
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let mut traces = Vec::new();
        for list in [&["ps", "-a"][..], &["network", "ls"], &["volume", "ls"]] {
            traces.push(docker.ok([list, &["-q", "--filter", &filter]].concat())?);
        }
        Ok(traces.concat())
    }
}

const SERVICE: &str = "{{index .Config.Labels \"com.docker.compose.service\"}}";

/// The plugin, which is a program of its own, too.
fn plugin() -> Result<PathBuf> {
    let at = fixtures::reference()?.join("usr/libexec/docker/cli-plugins/docker-compose");
    ensure!(at.exists(), "{} is missing", at.display());
    Ok(at)
}

const APPLICATION: &str = r#"
services:
  db:
    image: busybox
    command: sh -c "sleep 1; touch /ready; exec sleep 1000"
    healthcheck:
      test: ["CMD", "test", "-e", "/ready"]
      interval: 1s
      timeout: 5s
      retries: 30
    networks:
      inner:
        aliases: [database]
    volumes: ["data:/data"]
  app:
    image: busybox
    command: sh -c "echo app is up; exec sleep 1000"
    depends_on:
      db: {condition: service_healthy}
    networks: [inner, outer]
    scale: 3
  web:
    image: web
    depends_on: [app]
    ports: ["127.0.0.1::80"]
    networks: [outer]
networks:
  inner: {internal: true}
  outer: {}
volumes:
  data: {}
"#;

fn an_application_of_three_services_comes_up_and_goes_without_a_trace(on: &dyn Subject) -> Result<()> {
    let project = Project::new(on, "c-app", APPLICATION)?;
    ensure!(project.ok(&["config", "--services"])?.lines().count() == 3);
    project.ok(&["up", "-d"])?;
    let running = project.ok(&["ps", "--format", "{{.Service}} {{.State}}"])?;
    ensure!(running.lines().filter(|line| *line == "app running").count() == 3, "{running}");
    ensure!(project.ok(&["ps", "db", "--format", "{{.Health}}"])? == "healthy", "db was waited for");

    let lookup = |name: &str| project.ok(&["exec", "-T", "--index", "2", "app", "nslookup", name]);
    ensure!(lookup("database")?.contains("Name:\tdatabase"), "an alias on the inner network");
    let web = lookup("web")?;
    ensure!(web.contains("Name:\tweb"), "{web}");
    let replicas = lookup("app")?.matches("Name:\tapp").count();
    ensure!(replicas == 3, "{replicas} replicas are found");
    let hidden = project.command(&["exec", "-T", "db", "nslookup", "web"])?.in_time()?;
    ensure!(
        !String::from_utf8_lossy(&hidden.stdout).contains("Name:\tweb"),
        "db is not on the outer network"
    );
    let routes = project.ok(&["exec", "-T", "db", "ip", "route"])?;
    ensure!(!routes.contains("default"), "an internal network has no way out: {routes}");

    let port = project.ok(&["port", "web", "80"])?;
    let page = on.fetch(&format!("http://{port}/"))?;
    ensure!(page.contains("web"), "{page}");
    ensure!(project.ok(&["logs", "app"])?.matches("app is up").count() == 3);
    project.restart("app")?;
    project.ok(&["up", "-d", "--scale", "app=1"])?;
    let running = project.ok(&["ps", "app", "--format", "{{.State}}"])?;
    ensure!(running == "running", "scaled to one: {running}");
    project.ok(&["down", "-v", "-t", "0"])?;
    let traces = project.traces()?;
    ensure!(traces.is_empty(), "left behind: {traces}");
    Ok(())
}

/// The file that everybody copied from Elasticsearch's guide, on stand-ins for its images. Its memlock is unlimited, which
/// takes a right that not every system with tests has: [`the_classic_file_may_lock_all_memory_where_its_system_may`].
const CLASSIC: &str = r#"
version: '2.2'
services:
  es01:
    image: busybox
    container_name: c-es01
    command: ["sh", "-c", "ulimit -l; exec sleep 1000"]
    environment:
      - node.name=es01
      - discovery.seed_hosts=es02,es03
      - "ES_JAVA_OPTS=-Xms512m -Xmx512m"
    ulimits:
      memlock:
        soft: 65536
        hard: 65536
    volumes: ["esdata01:/usr/share/elasticsearch/data"]
    ports: ["127.0.0.1::9200"]
    networks: [esnet]
    stdin_open: true
    tty: true
  es02:
    image: busybox
    container_name: c-es02
    command: ["sleep", "1000"]
    ulimits: {memlock: {soft: 65536, hard: 65536}}
    volumes: ["esdata02:/usr/share/elasticsearch/data"]
    networks: [esnet]
  es03:
    image: busybox
    container_name: c-es03
    command: ["sleep", "1000"]
    ulimits: {memlock: {soft: 65536, hard: 65536}}
    volumes: ["esdata03:/usr/share/elasticsearch/data"]
    networks: [esnet]
  kibana:
    image: web
    container_name: c-kib01
    depends_on: [es01]
    ports: ["127.0.0.1::80"]
    networks: [esnet]
volumes:
  esdata01: {driver: local}
  esdata02: {driver: local}
  esdata03: {driver: local}
networks:
  esnet: {driver: bridge}
"#;

fn the_classic_file_of_three_nodes_runs(on: &dyn Subject) -> Result<()> {
    let project = Project::new(on, "c-classic", CLASSIC)?;
    project.ok(&["up", "-d"])?;
    let docker = on.docker();
    for other in ["es02", "es03", "c-kib01", "kibana"] {
        let found = docker.ok(["exec", "c-es01", "nslookup", other])?;
        ensure!(found.contains(&format!("Name:\t{other}")), "{found}");
    }
    let told = docker.ok(["inspect", "-f", "{{.Config.Tty}} {{.Config.OpenStdin}}", "c-es01"])?;
    ensure!(told == "true true", "{told}");
    let limit = project.ok(&["logs", "--no-log-prefix", "es01"])?;
    ensure!(limit.trim() == "64", "memlock: {limit}");
    let volumes = "label=com.docker.compose.project=c-classic";
    let volumes = docker.ok(["volume", "ls", "-q", "--filter", volumes])?;
    let expected = ["c-classic_esdata01", "c-classic_esdata02", "c-classic_esdata03"];
    ensure!(volumes.lines().eq(expected), "{volumes}");
    let kept = "/usr/share/elasticsearch/data/kept";
    project.ok(&["exec", "-T", "es02", "touch", kept])?;
    project.restart("es02")?;
    project.ok(&["exec", "-T", "es02", "ls", kept])?;
    let environment = docker.ok(["exec", "c-es01", "env"])?;
    ensure!(environment.contains("discovery.seed_hosts=es02,es03"), "{environment}");
    let networks = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}";
    ensure!(docker.ok(["inspect", "-f", networks, "c-es03"])? == "c-classic_esnet");
    let port = project.ok(&["port", "kibana", "80"])?;
    on.fetch(&format!("http://{port}/")).context("kibana's stand-in")?;
    project.ok(&["down", "-v", "-t", "0"])?;
    let traces = project.traces()?;
    ensure!(traces.is_empty(), "left behind: {traces}");
    Ok(())
}

fn the_classic_file_may_lock_all_memory_where_its_system_may(on: &dyn Subject) -> Result<()> {
    let file = CLASSIC.replace("65536", "-1").replace("container_name: c-", "container_name: c-locks-");
    let project = Project::new(on, "c-locks", &file)?;
    project.ok(&["create"])?;
    let docker = on.docker();
    for node in ["c-locks-es01", "c-locks-es02", "c-locks-es03"] {
        let limits = docker.ok(["inspect", "-f", "{{json .HostConfig.Ulimits}}", node])?;
        ensure!(limits == r#"[{"Name":"memlock","Hard":-1,"Soft":-1}]"#, "{limits}");
    }
    let started = project.command(&["start", "es01"])?.in_time()?;
    if may_lock_all_memory(on)? {
        ensure!(started.status.success(), "{started:?}");
        wait_for_log(on, "c-locks-es01", "unlimited")?;
    } else {
        let told = String::from_utf8_lossy(&started.stderr);
        let why = ["OCI runtime create failed: ", "error setting rlimit", "operation not permitted"];
        ensure!(!started.status.success() && why.iter().all(|part| told.contains(part)), "{started:?}");
        let state = docker.ok(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "c-locks-es01"])?;
        ensure!(state == "created 128", "{state}");
    }
    project.ok(&["down", "-v", "-t", "0"])?;
    let traces = project.traces()?;
    ensure!(traces.is_empty(), "left behind: {traces}");
    Ok(())
}

/// Whether an engine may give processes more than it has itself. In its own machine it has every right.
fn may_lock_all_memory(on: &dyn Subject) -> Result<bool> {
    let is_beside_us = on.network().is_some();
    Ok(!is_beside_us || on.on_host("sh").args(["-c", "ulimit -l unlimited"]).in_time()?.status.success())
}

const LISTED: &str = r#"
services:
  one: {image: busybox, command: ["sleep", "1234"]}
  two: {image: busybox, command: ["sh", "-c", "sleep 5678 & sleep 8765"], stop_signal: SIGKILL}
"#;

fn its_lists_tell_of_an_application(on: &dyn Subject) -> Result<()> {
    let project = Project::new(on, "c-listed", LISTED)?;
    project.ok(&["up", "-d"])?;
    let list = |more: &[&str]| -> Result<Value> {
        let words = [&["ls", "--format", "json", "--filter", "name=c-listed"], more].concat();
        Ok(serde_json::from_str(&project.ok(&words)?)?)
    };
    let listed = list(&[])?;
    ensure!(listed[0]["Name"] == "c-listed" && listed[0]["Status"] == "running(2)", "{listed}");
    until("the processes of both services", || {
        let told = project.ok(&["top"])?;
        let is_told = ["sleep 1234", "sleep 5678", "sleep 8765"].iter().all(|process| told.contains(process));
        Ok(is_told.then_some(()))
    })?;
    ensure!(!project.ok(&["top", "two"])?.contains("sleep 1234"), "the other service's");
    project.ok(&["stop", "two"])?;
    let listed = list(&["-a"])?;
    ensure!(listed[0]["Status"] == "exited(1), running(1)", "{listed}");
    project.ok(&["down", "-t", "0"])?;
    ensure!(list(&["-a"])? == json!([]), "{}", list(&["-a"])?);
    Ok(())
}

const OVERLAY: &str = r#"
services:
  db: {image: web, networks: [mesh]}
  app: {image: busybox, command: ["sleep", "1000"], networks: [mesh], depends_on: [db]}
networks:
  mesh: {driver: overlay, attachable: true}
"#;

fn a_file_for_an_overlay_comes_up_on_one_node(on: &dyn Subject) -> Result<()> {
    let project = Project::new(on, "c-overlay", OVERLAY)?;
    project.ok(&["up", "-d"])?;
    let page = project.ok(&["exec", "-T", "app", "wget", "-qO-", "http://db/"])?;
    ensure!(page.contains("web"), "{page}");
    project.ok(&["down", "-v", "-t", "0"])?;
    let traces = project.traces()?;
    ensure!(traces.is_empty(), "left behind: {traces}");
    Ok(())
}
