//! The compute system's document: a [`VmSpec`] in the words of the HCS schema, version 2.1.
//!
//! Source: Microsoft's "HCS JSON schema reference" and the `internal/hcs/schema2` package of microsoft/hcsshim.

use std::path::Path;

use caisson_hypervisor::VmSpec;
use serde_json::{Value, json};

/// Who may use the machine's hvsockets: the system, administrators, and the user who made the machine (SDDL).
const ACCESS: &str = "D:P(A;;FA;;;SY)(A;;FA;;;BA)(A;;FA;;;OW)";

/// What a machine consists of besides its [`VmSpec`].
pub(crate) struct Devices<'a> {
    /// The root as a VHD, if there is one.
    pub(crate) root: Option<&'a Path>,
    /// The data disk as a VHDX.
    pub(crate) data: &'a Path,
    /// The pipe on which the host waits for the console's output.
    pub(crate) console: &'a str,
    /// Virtual processors.
    pub(crate) cpus: u32,
}

/// The document that makes the machine.
pub(crate) fn document(spec: &VmSpec, devices: &Devices<'_>) -> Value {
    json!({
        "Owner": "Caisson",
        "SchemaVersion": {"Major": 2, "Minor": 1},
        "ShouldTerminateOnLastHandleClosed": true,
        "VirtualMachine": {
            "StopOnReset": true,
            "Chipset": {"LinuxKernelDirect": {
                "KernelFilePath": spec.kernel,
                "InitRdPath": spec.initrd,
                "KernelCmdLine": format!("console=ttyS0 8250_core.nr_uarts=1 8250_core.skip_txen_test=1 {}", spec.cmdline),
            }},
            "ComputeTopology": {
                "Memory": {"SizeInMB": spec.memory.0, "AllowOvercommit": true},
                "Processor": {"Count": devices.cpus},
            },
            "Devices": {
                "ComPorts": {"0": {"NamedPipe": devices.console}},
                "HvSocket": {"HvSocketConfig": {
                    "DefaultBindSecurityDescriptor": ACCESS,
                    "DefaultConnectSecurityDescriptor": ACCESS,
                }},
                "Scsi": {"0": {"Attachments": attachments(devices)}},
            },
        },
    })
}

/// The disks in the order that [`VmSpec`] promises to the guest.
fn attachments(devices: &Devices<'_>) -> Value {
    let root = devices.root.map(|path| json!({"Type": "VirtualDisk", "Path": path, "ReadOnly": true}));
    let data = json!({"Type": "VirtualDisk", "Path": devices.data, "ReadOnly": false});
    let disks = root.into_iter().chain([data]);
    disks.enumerate().map(|(slot, disk)| (slot.to_string(), disk)).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use caisson_hypervisor::{HostVsockPort, Mib};

    use super::*;

    fn spec() -> VmSpec {
        VmSpec {
            kernel: PathBuf::from("kernel"),
            initrd: PathBuf::from("initrd"),
            root: Some(PathBuf::from("root.erofs")),
            data_disk: PathBuf::from("data.raw"),
            cmdline: "quiet".to_owned(),
            cpus: 4,
            memory: Mib(2048),
            listen: vec![HostVsockPort(1024)],
            console_log: PathBuf::from("console.log"),
            runtime_dir: PathBuf::from("run"),
        }
    }

    fn devices(root: Option<&Path>) -> Devices<'_> {
        Devices { root, data: Path::new("data.vhdx"), console: r"\\.\pipe\c", cpus: 2 }
    }

    #[test]
    fn the_document_boots_the_kernel_with_its_arguments() {
        let document = document(&spec(), &devices(None));
        let boot = &document["VirtualMachine"]["Chipset"]["LinuxKernelDirect"];
        assert_eq!(boot["KernelFilePath"], "kernel");
        assert_eq!(boot["InitRdPath"], "initrd");
        assert!(
            boot["KernelCmdLine"]
                .as_str()
                .is_some_and(|line| line.starts_with("console=ttyS0") && line.ends_with(" quiet"))
        );
        assert_eq!(document["VirtualMachine"]["ComputeTopology"]["Memory"]["SizeInMB"], 2048);
        assert_eq!(document["VirtualMachine"]["ComputeTopology"]["Processor"]["Count"], 2);
    }

    #[test]
    fn the_machine_ends_with_its_last_handle() {
        assert_eq!(document(&spec(), &devices(None))["ShouldTerminateOnLastHandleClosed"], true);
    }

    #[test]
    fn the_root_comes_before_the_data_and_is_read_only() {
        let document = document(&spec(), &devices(Some(Path::new("root.vhd"))));
        let disks = &document["VirtualMachine"]["Devices"]["Scsi"]["0"]["Attachments"];
        assert_eq!(disks["0"], json!({"Type": "VirtualDisk", "Path": "root.vhd", "ReadOnly": true}));
        assert_eq!(disks["1"], json!({"Type": "VirtualDisk", "Path": "data.vhdx", "ReadOnly": false}));
    }

    #[test]
    fn without_a_root_the_data_is_the_first_disk() {
        let document = document(&spec(), &devices(None));
        let disks = &document["VirtualMachine"]["Devices"]["Scsi"]["0"]["Attachments"];
        assert_eq!(disks["0"]["Path"], "data.vhdx");
        assert_eq!(disks["1"], Value::Null);
    }
}
