//! What is said on the screen.

use crate::progress::final_line;
use caisson_app_api::{
    Acceleration, ApiError, EngineState, Failure, MachineState, MachineStatus, PortForwardStatus,
    PortProtocol, Version,
};
use serde::Serialize;
use std::{
    io::{self, Write},
    time::Duration,
};

/// Prints `value` as JSON, or else what people read.
pub(crate) fn print(json: bool, value: &impl Serialize, lines: impl FnOnce() -> Vec<String>) {
    let lines = if json { vec![json_text(value)] } else { lines() };
    for line in lines {
        say(&line);
    }
}

/// Prints a line. Whoever read our output may have seen enough (`caisson status | head -1`), which is no failure.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{}", plain(line));
}

/// The text without what a terminal obeys: the machine and its containers have their say in what is printed here.
pub(crate) fn plain(text: &str) -> String {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.chars().map(|c| if obeyed(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{ \"error\": \"{error}\" }}"))
}

/// Tells why a command failed: on standard error, or as `{"error": …}`.
pub(crate) fn error(error: &ApiError, json: bool) {
    if json {
        return say(&json_text(&serde_json::json!({ "error": error })));
    }
    eprintln!("error: {}", plain(&error.message));
    for line in error.detail.iter().flat_map(|detail| detail.lines()) {
        eprintln!("  {}", plain(line));
    }
}

/// The error of a boot that failed, with what the status knows of it.
pub(crate) fn with_failure(error: ApiError, status: &MachineStatus) -> ApiError {
    match &status.state {
        MachineState::Failed { failure } => error.with_detail(failure_lines(failure).join("\n")),
        _ => error,
    }
}

/// How much of the console's end is shown with a failure; `caisson logs` has all of it.
const CONSOLE_LINES: usize = 10;

/// What can be done, and the end of the console.
fn failure_lines(failure: &Failure) -> Vec<String> {
    let remedy = failure.remedy.iter().map(|remedy| format!("what to do: {remedy}"));
    let console: Vec<&str> = failure.console_tail.lines().collect();
    let end = console.iter().skip(console.len().saturating_sub(CONSOLE_LINES));
    remedy.chain(end.map(|line| format!("console: {line}"))).collect()
}

/// `caisson status`: the stages of the boot as well.
pub(crate) fn status_by_stage(status: Option<&MachineStatus>) -> Vec<String> {
    let mut lines = self::status(status);
    let stages = status.into_iter().flat_map(|status| &status.stages).filter_map(final_line);
    lines.splice(1..1, stages.map(|line| format!("  {line}")));
    lines
}

/// What is said after a start, which has shown the stages; without a status there is no daemon.
pub(crate) fn status(status: Option<&MachineStatus>) -> Vec<String> {
    let Some(status) = status else {
        return vec!["The machine is off; the host daemon is not running.".to_owned()];
    };
    let mut details = Vec::new();
    match &status.state {
        MachineState::Running { engine: EngineState::Restarting { status, .. }, .. } => {
            details.push(format!("The container engine ended ({status}) and is starting again."));
        }
        MachineState::Failed { failure } => details = failure_lines(failure),
        MachineState::Stopped
        | MachineState::Preparing
        | MachineState::Booting { .. }
        | MachineState::Running { .. }
        | MachineState::Stopping => {}
    }
    details.extend(notices(status));
    details.push(format!("docker socket   {}", status.docker_host));
    details.push(format!("docker context  {}", status.docker_context));
    let details = details.into_iter().map(|line| format!("  {line}"));
    std::iter::once(state(status)).chain(details).collect()
}

fn state(status: &MachineStatus) -> String {
    match &status.state {
        MachineState::Stopped => "The machine is off.".to_owned(),
        MachineState::Preparing => "The machine is being prepared.".to_owned(),
        MachineState::Booting { stage } => {
            let text = status
                .stages
                .iter()
                .find(|known| known.stage == *stage)
                .map_or("", |known| known.text.as_str());
            format!("The machine is starting: {text}.")
        }
        MachineState::Running { boot_ms, .. } => {
            let took = seconds(Duration::from_millis((*boot_ms).into()));
            format!("The machine is running ({}; started in {took}).", hypervisor(status))
        }
        MachineState::Stopping => "The machine is stopping.".to_owned(),
        MachineState::Failed { failure } => format!("The machine failed: {}", failure.message),
    }
}

fn hypervisor(status: &MachineStatus) -> String {
    match &status.acceleration {
        Some(Acceleration::Hardware { by }) => format!("{} with {by}", status.hypervisor),
        Some(Acceleration::Emulated) => format!("{}, emulated", status.hypervisor),
        None => status.hypervisor.clone(),
    }
}

fn notices(status: &MachineStatus) -> Vec<String> {
    let mut lines = Vec::new();
    for notice in &status.notices {
        lines.push(format!("note: {}", notice.text));
        lines.extend(notice.remedy.iter().map(|remedy| format!("      {remedy}")));
    }
    lines.extend(status.disk_full.iter().map(|room| {
        format!("note: the data disk is full: {} of {} MiB are free", room.free_mib, room.total_mib)
    }));
    lines
}

/// `caisson ports`
pub(crate) fn ports(ports: &[PortForwardStatus]) -> Vec<String> {
    if ports.is_empty() {
        return vec!["No ports are published.".to_owned()];
    }
    let head = format!("{:<28} {:<14} {:<22} CONNECTIONS", "ADDRESS", "CONTAINER", "TARGET");
    let rows = ports.iter().map(|port| {
        let address = format!("{}/{}", host_address(&port.host_ip, port.host_port), protocol(port.protocol));
        let container: String = port.container_id.chars().take(12).collect();
        format!("{address:<28} {container:<14} {:<22} {}", port.target, port.connections)
    });
    std::iter::once(head).chain(rows).collect()
}

fn host_address(ip: &str, port: u16) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn protocol(protocol: PortProtocol) -> &'static str {
    match protocol {
        PortProtocol::Tcp => "tcp",
        PortProtocol::Udp => "udp",
        PortProtocol::Sctp => "sctp",
    }
}

/// `caisson version`
pub(crate) fn versions(caisson: &str, daemon: Option<&Version>) -> Vec<String> {
    let mut lines = vec![format!("caisson       {caisson}")];
    let Some(version) = daemon else {
        lines.push("caisson-host  not running".to_owned());
        return lines;
    };
    lines.push(format!("caisson-host  {} ({}, process {})", version.daemon, version.platform, version.pid));
    lines.push(version.engine.as_ref().map_or("engine        not running".to_owned(), |engine| {
        format!(
            "engine        {} (API {} to {}, Linux {}, {})",
            engine.version, engine.min_api_version, engine.api_version, engine.kernel, engine.arch
        )
    }));
    lines
}

/// A duration as people read it: `2.3 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;
    use caisson_app_api::{BootStage, FailureCode, Notice, NoticeCode, StageProgress, StageStatus};

    fn machine(state: MachineState) -> MachineStatus {
        MachineStatus {
            state,
            stages: Vec::new(),
            notices: vec![Notice {
                about: NoticeCode::KvmAbsent,
                text: "it is slow".into(),
                remedy: Some("buy a faster one".into()),
            }],
            hypervisor: "QEMU".into(),
            acceleration: Some(Acceleration::Emulated),
            disk_full: None,
            docker_host: "unix:///run/d.sock".into(),
            docker_context: "caisson".into(),
        }
    }

    #[test]
    fn a_running_machine_says_by_what_how_fast_and_where() {
        let running = MachineState::Running { boot_ms: 6_400, engine: EngineState::Up };
        let expected = [
            "The machine is running (QEMU, emulated; started in 6.4 s).",
            "  note: it is slow",
            "        buy a faster one",
            "  docker socket   unix:///run/d.sock",
            "  docker context  caisson",
        ];
        assert_eq!(status(Some(&machine(running))), expected);
    }

    #[test]
    fn the_stages_that_are_over_come_after_the_first_line() {
        let stage =
            |stage, progress| StageStatus { stage, progress, text: "text".into(), took_ms: Some(700) };
        let mut booting = machine(MachineState::Booting { stage: BootStage::Kernel });
        booting.stages = vec![
            stage(BootStage::Hypervisor, StageProgress::Done),
            stage(BootStage::Kernel, StageProgress::Active),
        ];
        let lines = status_by_stage(Some(&booting));
        assert_eq!(lines[0], "The machine is starting: text.");
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["done", "text", "0.7", "s"]);
        assert_eq!(lines[2], "  note: it is slow");
    }

    #[test]
    fn a_failed_machine_says_what_to_do_and_its_last_words() {
        let failure = Failure {
            stage: None,
            code: FailureCode::ProgramMissing,
            message: "qemu is not installed".into(),
            remedy: Some("apt install qemu".into()),
            console_tail: "one\ntwo".into(),
        };
        let lines = status(Some(&machine(MachineState::Failed { failure })));
        let expected = [
            "The machine failed: qemu is not installed",
            "  what to do: apt install qemu",
            "  console: one",
            "  console: two",
        ];
        assert_eq!(lines[..4], expected);
    }

    #[test]
    fn of_a_long_console_only_the_end_is_shown() {
        let console: Vec<String> = (0..30).map(|n| n.to_string()).collect();
        let failure = Failure {
            stage: None,
            code: FailureCode::MachineDied,
            message: "qemu ended".into(),
            remedy: None,
            console_tail: console.join("\n"),
        };
        let shown = failure_lines(&failure);
        assert_eq!((shown.len(), shown[0].as_str()), (CONSOLE_LINES, "console: 20"));
    }

    #[test]
    fn a_guest_does_not_command_the_terminal() {
        assert_eq!(plain("a\tb\x1b]0;gone\x07\u{9b}2J 글"), "a\tb\u{fffd}]0;gone\u{fffd}\u{fffd}2J 글");
    }

    #[test]
    fn an_ipv6_address_is_told_apart_from_its_port() {
        assert_eq!(host_address("::", 80), "[::]:80");
        assert_eq!(host_address("127.0.0.1", 80), "127.0.0.1:80");
    }
}
