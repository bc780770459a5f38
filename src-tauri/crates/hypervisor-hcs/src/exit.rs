//! What the service says when a system has exited.

use caisson_hypervisor::VmEnd;
use serde::Deserialize;

/// The part that errors name: the process that runs a Hyper-V machine.
pub(crate) const PART: &str = "vmwp.exe";

/// `SystemExitStatus` of the HCS schema.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SystemExitStatus {
    #[serde(default)]
    status: i32,
    #[serde(default)]
    exit_type: String,
}

/// The end that the data of an exit event tells.
pub(crate) fn end(event: &str) -> VmEnd {
    let exit = serde_json::from_str(event)
        .unwrap_or_else(|_| SystemExitStatus { status: 0, exit_type: event.to_owned() });
    match exit.exit_type.as_str() {
        "GracefulExit" => VmEnd::PoweredOff,
        "ForcedExit" => VmEnd::Killed,
        "Reboot" => VmEnd::Rebooted,
        other => died(&format!("{other}, status {:#010x}", exit.status)),
    }
}

/// An end that nobody asked for.
pub(crate) fn died(how: &str) -> VmEnd {
    VmEnd::Died { part: PART.to_owned(), how: how.to_owned(), tail: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_type_is_its_end() {
        let cases = [
            (r#"{"Status":0,"ExitType":"GracefulExit"}"#, VmEnd::PoweredOff),
            (r#"{"Status":0,"ExitType":"ForcedExit","Attribution":[]}"#, VmEnd::Killed),
            (r#"{"ExitType":"Reboot"}"#, VmEnd::Rebooted),
            (
                r#"{"Status":-1070137082,"ExitType":"UnexpectedExit"}"#,
                died("UnexpectedExit, status 0xc0370106"),
            ),
            ("no json", died("no json, status 0x00000000")),
        ];
        for (event, expected) in cases {
            assert_eq!(end(event), expected, "{event}");
        }
    }
}
