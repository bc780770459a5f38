//! What is said on the screen.

use caisson_app_api::{
    Acceleration, ApiError, EngineState, Failure, MachineState, MachineStatus, PortForwardStatus,
    PortProtocol, Version,
};
use serde::Serialize;
use std::time::Duration;

/// Prints `value` as JSON or lets `text` print it for people.
pub(crate) fn print(json: bool, value: &impl Serialize, text: impl FnOnce()) {
    if json { print_json(value) } else { text() }
}

fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("error: this has no JSON form: {error}"),
    }
}

/// Tells why a command failed: on standard error, or as `{"error": …}`.
pub(crate) fn error(error: &ApiError, json: bool) {
    if json {
        print_json(&serde_json::json!({ "error": error }));
        return;
    }
    eprintln!("error: {}", error.message);
    for line in error.detail.iter().flat_map(|detail| detail.lines()) {
        eprintln!("  {line}");
    }
}

/// The error of a boot that failed, with what the status knows of it.
pub(crate) fn with_failure(error: ApiError, status: &MachineStatus) -> ApiError {
    match &status.state {
        MachineState::Failed { failure } => {
            let lines: Vec<String> = failure_lines(failure).collect();
            error.with_detail(lines.join("\n"))
        }
        _ => error,
    }
}

/// What can be done, and the end of the console.
fn failure_lines(failure: &Failure) -> impl Iterator<Item = String> + '_ {
    let remedy = failure.remedy.iter().map(|remedy| format!("what to do: {remedy}"));
    let console = failure.console_tail.lines().map(|line| format!("console: {line}"));
    remedy.chain(console)
}

/// After a start.
pub(crate) fn started(status: &MachineStatus) {
    state(status);
    notices(status);
    endpoints(status);
}

/// `caisson status`; without a status there is no daemon.
pub(crate) fn status(status: Option<&MachineStatus>) {
    let Some(status) = status else {
        println!("The machine is off; the host daemon is not running.");
        return;
    };
    state(status);
    if let MachineState::Failed { failure } = &status.state {
        failure_lines(failure).for_each(|line| println!("  {line}"));
    }
    notices(status);
    endpoints(status);
}

fn state(status: &MachineStatus) {
    match &status.state {
        MachineState::Stopped => println!("The machine is off."),
        MachineState::Preparing => println!("The machine is being prepared."),
        MachineState::Booting { stage } => {
            let text = status
                .stages
                .iter()
                .find(|known| known.stage == *stage)
                .map_or("", |known| known.text.as_str());
            println!("The machine is starting: {text}.");
        }
        MachineState::Running { boot_ms, engine } => {
            let by = hypervisor(status);
            println!(
                "The machine is running ({by}; started in {}).",
                seconds(Duration::from_millis((*boot_ms).into()))
            );
            if let EngineState::Restarting { status, .. } = engine {
                println!("  The container engine ended ({status}) and is starting again.");
            }
        }
        MachineState::Stopping => println!("The machine is stopping."),
        MachineState::Failed { failure } => println!("The machine failed: {}", failure.message),
    }
}

fn hypervisor(status: &MachineStatus) -> String {
    match &status.acceleration {
        Some(Acceleration::Hardware { by }) => format!("{} with {by}", status.hypervisor),
        Some(Acceleration::Emulated) => format!("{}, emulated", status.hypervisor),
        None => status.hypervisor.clone(),
    }
}

fn notices(status: &MachineStatus) {
    for notice in &status.notices {
        println!("  note: {}", notice.text);
        if let Some(remedy) = &notice.remedy {
            println!("        {remedy}");
        }
    }
    if let Some(room) = &status.disk_full {
        println!("  note: the data disk is full: {} of {} MiB are free", room.free_mib, room.total_mib);
    }
}

fn endpoints(status: &MachineStatus) {
    println!("  docker socket   {}", status.docker_host);
    println!("  docker context  {}", status.docker_context);
}

/// `caisson ports`
pub(crate) fn ports(ports: &[PortForwardStatus]) {
    if ports.is_empty() {
        println!("No ports are published.");
        return;
    }
    println!("{:<28} {:<14} {:<22} CONNECTIONS", "ADDRESS", "CONTAINER", "TARGET");
    for port in ports {
        let address = format!("{}/{}", host_address(&port.host_ip, port.host_port), protocol(port.protocol));
        let container: String = port.container_id.chars().take(12).collect();
        println!("{address:<28} {container:<14} {:<22} {}", port.target, port.connections);
    }
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
pub(crate) fn versions(caisson: &str, daemon: Option<&Version>) {
    println!("caisson       {caisson}");
    let Some(version) = daemon else {
        println!("caisson-host  not running");
        return;
    };
    println!("caisson-host  {} ({}, process {})", version.daemon, version.platform, version.pid);
    match &version.engine {
        None => println!("engine        not running"),
        Some(engine) => println!(
            "engine        {} (API {} to {}, Linux {}, {})",
            engine.version, engine.min_api_version, engine.api_version, engine.kernel, engine.arch
        ),
    }
}

/// A duration as people read it: `2.3 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_address_is_told_apart_from_its_port() {
        assert_eq!(host_address("::", 80), "[::]:80");
        assert_eq!(host_address("127.0.0.1", 80), "127.0.0.1:80");
    }
}
