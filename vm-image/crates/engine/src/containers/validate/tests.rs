//! Every field of `Config` and `HostConfig`: what dockerd refuses, in its words; what a kernel cannot hold and is taken back; and for the
//! rest, who honours it.

use std::collections::BTreeSet;

use caisson_docker_api::go;
use caisson_docker_api::network::EndpointSettings;
use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;

fn checked(config: Value, host: Value, support: &Support) -> Result<(HostConfig, Vec<String>), ApiError> {
    let (config, mut host): (Config, HostConfig) = (go::decode(&config).unwrap(), go::decode(&host).unwrap());
    let warnings = check(&config, &mut host, support)?;
    Ok((host, warnings))
}

fn refusal(config: Value, host: Value) -> ApiError {
    checked(config, host, &Support::whole()).unwrap_err()
}

#[test]
fn what_the_cli_always_sends_is_accepted() {
    let host = json!({
        "Binds": null, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
        "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "ConsoleSize": [0, 0],
        "Dns": [], "BlkioDeviceReadBps": [], "Devices": [], "MemorySwappiness": -1, "OomKillDisable": false,
        "PidsLimit": 0, "Ulimits": [], "MaskedPaths": null, "Isolation": "", "VolumeDriver": ""
    });
    let config =
        json!({"Image": "busybox", "Volumes": {}, "Healthcheck": null, "Labels": {}, "OnBuild": null});
    let (_, warnings) = checked(config, host, &Support::default()).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
}

#[test]
fn mistakes_in_the_host_config_get_dockerd_s_words() {
    for (host, message) in [
        (
            json!({"RestartPolicy": {"Name": "foo"}}),
            "invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            json!({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}),
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            json!({"AutoRemove": true, "RestartPolicy": {"Name": "always"}}),
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            json!({"LogConfig": {"Type": "foo"}}),
            "error looking up logging plugin foo: plugin \"foo\" not found",
        ),
        (json!({"Runtime": "foo"}), "unknown or invalid runtime name: foo"),
        (json!({"ShmSize": -1}), "SHM size can not be less than 0"),
        (json!({"OomScoreAdj": 1001}), "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        (json!({"ExtraHosts": ["foo"]}), "bad format for add-host: \"foo\""),
        (json!({"ExtraHosts": ["foo:bar"]}), "invalid IP address in add-host: \"bar\""),
        (json!({"CapAdd": ["foo"]}), "invalid CapAdd: unknown capability: \"CAP_FOO\""),
        (json!({"CapDrop": ["foo"]}), "invalid CapDrop: unknown capability: \"CAP_FOO\""),
        (
            json!({"Annotations": {"": "x"}}),
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        // Namespaces
        (json!({"IpcMode": "foo"}), "invalid IPC mode: foo"),
        (json!({"PidMode": "foo"}), "invalid PID mode: foo"),
        (json!({"PidMode": "container:"}), "invalid PID mode: container:"),
        (json!({"UTSMode": "foo"}), "invalid UTS mode: foo"),
        (json!({"CgroupnsMode": "foo"}), "invalid cgroup namespace mode: foo"),
        (json!({"Isolation": "hyperv"}), "invalid isolation (hyperv): linux only supports 'default'"),
        (
            json!({"NetworkMode": "container:"}),
            "invalid network mode: invalid container format container:<name|id>",
        ),
        (
            json!({"NetworkMode": "container:x", "Dns": ["1.1.1.1"]}),
            "conflicting options: dns and the network mode",
        ),
        (
            json!({"NetworkMode": "container:x", "ExtraHosts": ["a:1.1.1.1"]}),
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            json!({"NetworkMode": "container:x", "PublishAllPorts": true}),
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            json!({"NetworkMode": "host", "Links": ["a:b"]}),
            "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
        ),
    ] {
        assert_eq!(refusal(json!({}), host), ApiError::invalid(message));
    }
}

#[test]
fn limits_that_make_no_sense_get_dockerd_s_words() {
    const MIB: i64 = 1 << 20;
    for (host, message) in [
        (json!({"Memory": 100}), "Minimum memory limit allowed is 6MB"),
        (
            json!({"Memory": 8 * MIB, "MemorySwap": 7 * MIB}),
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            json!({"MemorySwap": 7 * MIB}),
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (json!({"MemoryReservation": MIB}), "Minimum memory reservation allowed is 6MB"),
        (
            json!({"Memory": 8 * MIB, "MemoryReservation": 9 * MIB}),
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            json!({"NanoCpus": 1, "CpuPeriod": 1}),
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            json!({"NanoCpus": 1, "CpuQuota": 1}),
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            json!({"NanoCpus": 5_000_000_000_i64}),
            "range of CPUs is from 0.01 to 4.00, as there are only 4 CPUs available",
        ),
        (
            json!({"CpuPeriod": 10}),
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        (json!({"CpuQuota": 10}), "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        (json!({"CpuShares": -1}), "invalid CPU shares (-1): value must be a positive integer"),
        (json!({"CpuRealtimeRuntime": 1}), "kernel does not support CPU real-time scheduler"),
        (json!({"CpuRealtimePeriod": 1}), "kernel does not support CPU real-time scheduler"),
        (json!({"CpusetCpus": "0-9"}), "Requested CPUs are not available - requested 0-9, available: 0-3"),
        (json!({"CpusetCpus": "x"}), "Invalid value x for cpuset cpus: invalid format: x"),
        (json!({"CpusetMems": "1"}), "Requested memory nodes are not available - requested 1, available: 0"),
        (json!({"BlkioWeight": 5}), "Range of blkio weight is from 10 to 1000"),
        (
            json!({"IOMaximumBandwidth": 1}),
            "invalid option: QoS maximum bandwidth configuration is not supported on linux",
        ),
        (
            json!({"IOMaximumIOps": 1}),
            "invalid option: QoS maximum IOPs configuration is not supported on linux",
        ),
    ] {
        assert_eq!(refusal(json!({}), host), ApiError::invalid(message));
    }
}

#[test]
fn mistakes_in_the_config_get_dockerd_s_words() {
    for (config, host, message) in [
        (
            json!({"WorkingDir": "rel"}),
            json!({}),
            "the working directory 'rel' is invalid, it needs to be an absolute path",
        ),
        (json!({"Env": ["=x"]}), json!({}), "invalid environment variable: =x"),
        (json!({"StopSignal": "FOO"}), json!({}), "invalid signal: FOO"),
        (json!({"Healthcheck": {"Retries": -1}}), json!({}), "Retries in Healthcheck cannot be negative"),
        (
            json!({"Hostname": "a"}),
            json!({"UTSMode": "host"}),
            "conflicting options: hostname and the UTS mode",
        ),
        (
            json!({"Hostname": "a"}),
            json!({"NetworkMode": "container:x"}),
            "conflicting options: hostname and the network mode",
        ),
        (
            json!({"ExposedPorts": {"1/tcp": {}}}),
            json!({"NetworkMode": "container:x"}),
            "conflicting options: port exposing and the container type network mode",
        ),
    ] {
        assert_eq!(refusal(config, host), ApiError::invalid(message));
    }
}

/// A limit that dockerd takes back on such a kernel, what of it is left, and what the user is told.
#[test]
fn what_the_kernel_cannot_hold_is_taken_back_and_told() {
    let disk = json!([{"Path": "/dev/sda", "Rate": 1}]);
    let none = Support { processors: 4, ..Support::default() };
    for (support, asked, left, told) in [
        (
            &none,
            json!({"Memory": 8 << 20}),
            json!({"Memory": 0, "MemorySwap": -1}),
            "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        ),
        (
            &Support { swap: false, ..Support::whole() },
            json!({"Memory": 8 << 20}),
            json!({"Memory": 8 << 20, "MemorySwap": -1}),
            "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.",
        ),
        (
            &Support::whole(),
            json!({"MemorySwappiness": 5}),
            json!({"MemorySwappiness": null}),
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
        ),
        (
            &none,
            json!({"MemoryReservation": 8 << 20}),
            json!({"MemoryReservation": 0}),
            "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
        ),
        (
            &Support::whole(),
            json!({"KernelMemory": 8 << 20}),
            json!({}),
            "Your kernel does not support kernel memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
        ),
        (
            &Support::whole(),
            json!({"OomKillDisable": true}),
            json!({"OomKillDisable": null}),
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
        ),
        (
            &none,
            json!({"PidsLimit": 5}),
            json!({"PidsLimit": null}),
            "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
        ),
        (
            &none,
            json!({"CpuShares": 5}),
            json!({"CpuShares": 0}),
            "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
        ),
        (
            &none,
            json!({"CpuQuota": 5000, "CpuPeriod": 10000}),
            json!({"CpuQuota": 0, "CpuPeriod": 0}),
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
        ),
        (
            &Support::whole(),
            json!({"CpuPercent": 5}),
            json!({"CpuPercent": 0}),
            "linux does not support CPU percent. Percent discarded.",
        ),
        (
            &none,
            json!({"CpusetCpus": "0"}),
            json!({"CpusetCpus": ""}),
            "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
        ),
        (
            &none,
            json!({"BlkioWeight": 500}),
            json!({"BlkioWeight": 0}),
            "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
        ),
        (
            &none,
            json!({"BlkioWeightDevice": [{"Path": "/dev/sda", "Weight": 10}]}),
            json!({"BlkioWeightDevice": []}),
            "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
        ),
        (
            &none,
            json!({"BlkioDeviceReadBps": disk}),
            json!({"BlkioDeviceReadBps": []}),
            "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
        ),
        (
            &none,
            json!({"BlkioDeviceWriteBps": disk}),
            json!({"BlkioDeviceWriteBps": []}),
            "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
        ),
        (
            &none,
            json!({"BlkioDeviceReadIOps": disk}),
            json!({"BlkioDeviceReadIOps": []}),
            "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
        ),
        (
            &none,
            json!({"BlkioDeviceWriteIOps": disk}),
            json!({"BlkioDeviceWriteIOps": []}),
            "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
        ),
    ] {
        let (host, warnings) = checked(json!({}), asked, support).unwrap();
        assert_eq!(warnings, [told]);
        let host = serde_json::to_value(host).unwrap();
        for (field, value) in left.as_object().unwrap() {
            assert_eq!(host[field], *value, "{field}");
        }
    }
    let refused = checked(json!({}), json!({"NanoCpus": 1_000_000_000}), &none).unwrap_err();
    assert!(refused.message.starts_with("NanoCPUs can not be set"), "{refused}");
}

#[test]
fn an_update_may_change_swap_alone() {
    let mut host = HostConfig { memory_swap: 7 << 20, ..HostConfig::default() };
    assert!(resources::settle(&mut host, &Support::whole(), resources::For::Update).is_ok());
}

/// Who honours what was not refused. A field that is new in `HostConfig` needs a place here, and with it somebody who honours it.
#[test]
fn every_field_of_the_host_config_has_somebody_who_honours_it() {
    let honoured = [
        ("mounts", "Binds Mounts VolumeDriver VolumesFrom Tmpfs ShmSize ReadonlyRootfs StorageOpt"),
        (
            "networks and /etc",
            "NetworkMode PortBindings PublishAllPorts Links Dns DnsOptions DnsSearch ExtraHosts",
        ),
        ("the container's task", "RestartPolicy AutoRemove LogConfig"),
        (
            "the spec: rights",
            "CapAdd CapDrop Privileged SecurityOpt MaskedPaths ReadonlyPaths GroupAdd OomScoreAdj",
        ),
        (
            "the spec: namespaces",
            "IpcMode PidMode UTSMode UsernsMode CgroupnsMode Sysctls Init Annotations ConsoleSize",
        ),
        (
            "the spec: limits",
            "CpuShares Memory NanoCpus CgroupParent BlkioWeight BlkioWeightDevice BlkioDeviceReadBps",
        ),
        (
            "the spec: limits",
            "BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps CpuPeriod CpuQuota CpusetCpus",
        ),
        ("the spec: limits", "CpusetMems MemoryReservation MemorySwap PidsLimit Ulimits"),
        ("the spec: devices", "Devices DeviceCgroupRules DeviceRequests"),
        (
            "refused here",
            "CpuRealtimePeriod CpuRealtimeRuntime IOMaximumIOps IOMaximumBandwidth Isolation Cgroup Runtime",
        ),
        (
            "taken back here",
            "KernelMemory KernelMemoryTCP MemorySwappiness OomKillDisable CpuCount CpuPercent",
        ),
        ("the client's own", "ContainerIDFile"),
    ];
    let known: BTreeSet<&str> = honoured.iter().flat_map(|(_, fields)| fields.split(' ')).collect();
    // Those that are left out when they are empty have to be filled to be seen.
    let host: HostConfig = go::decode(&json!({
        "Annotations": {"a": "b"}, "StorageOpt": {"a": "b"}, "Tmpfs": {"a": "b"}, "Sysctls": {"a": "b"},
        "Runtime": "runc", "KernelMemory": 1, "KernelMemoryTCP": 1, "Mounts": [{}], "Init": true
    }))
    .unwrap();
    let fields = serde_json::to_value(host).unwrap();
    let fields: BTreeSet<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, known);
}

/// The same of `Config` and of a container's wish for a network.
#[test]
fn every_field_of_the_rest_has_somebody_who_honours_it() {
    let config: Config = go::decode(&json!({
        "ExposedPorts": {"1/tcp": {}}, "Healthcheck": {}, "ArgsEscaped": true, "NetworkDisabled": true, "MacAddress": "x",
        "StopSignal": "1", "StopTimeout": 1, "Shell": ["sh"]
    }))
    .unwrap();
    let endpoint: EndpointSettings = go::decode(&json!({
        "IPAMConfig": {"IPv4Address": "x", "IPv6Address": "x", "LinkLocalIPs": []}
    }))
    .unwrap();
    let endpoint = serde_json::to_value(endpoint).unwrap();
    for (fields, honoured) in [
        (
            serde_json::to_value(config).unwrap(),
            &[
                ("the spec", "Hostname Domainname User Tty Env Cmd Entrypoint WorkingDir"),
                ("streams", "AttachStdin AttachStdout AttachStderr OpenStdin StdinOnce"),
                ("networks and ports", "ExposedPorts NetworkDisabled MacAddress"),
                ("mounts", "Volumes"),
                ("the container's task", "StopSignal StopTimeout Healthcheck Shell"),
                ("kept for inspect, events and commit", "Image Labels OnBuild ArgsEscaped"),
            ][..],
        ),
        (endpoint["IPAMConfig"].clone(), &[("networks::plan", "IPv4Address IPv6Address LinkLocalIPs")]),
        (
            endpoint,
            &[
                ("networks::wishes", "IPAMConfig Links Aliases MacAddress DriverOpts GwPriority"),
                (
                    "what it is, not what is asked for",
                    "NetworkID EndpointID Gateway IPAddress IPPrefixLen IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen DNSNames",
                ),
            ],
        ),
    ] {
        let known: BTreeSet<&str> = honoured.iter().flat_map(|(_, fields)| fields.split(' ')).collect();
        let fields: BTreeSet<&str> = fields.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, known);
    }
}

/// What Engine API 1.51 has in `HostConfig` and `Config` is in ours: what is not would be dropped while it is read.
#[test]
fn no_field_of_the_api_is_unknown_here() {
    for (sent, kept) in [
        (
            json!({"CpuShares": 1, "Memory": 1, "CgroupParent": "x", "BlkioWeight": 1, "CpuCount": 1, "CpuPercent": 1,
                "ContainerIDFile": "x", "Cgroup": "x", "Isolation": "x", "UsernsMode": "x", "VolumesFrom": ["x"],
                "DnsOptions": ["x"], "Links": ["x"], "StorageOpt": {"a": "b"}, "KernelMemory": 1,
                "DeviceRequests": [{"Driver": "x", "Count": 1, "DeviceIDs": ["x"], "Capabilities": [["x"]], "Options": {"a": "b"}}],
                "Mounts": [{"Type": "x", "Source": "x", "Target": "x", "ReadOnly": true, "Consistency": "x",
                    "BindOptions": {"Propagation": "x", "NonRecursive": true, "CreateMountpoint": true,
                        "ReadOnlyNonRecursive": true, "ReadOnlyForceRecursive": true},
                    "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}, "Subpath": "x",
                        "DriverConfig": {"Name": "x", "Options": {"a": "b"}}},
                    "ImageOptions": {"Subpath": "x"},
                    "TmpfsOptions": {"SizeBytes": 1, "Mode": 1, "Options": [["exec"]]}, "ClusterOptions": {"a": 1}}]}),
            |sent: &Value| serde_json::to_value(go::decode::<HostConfig>(sent).unwrap()).unwrap(),
        ),
        (
            json!({"Healthcheck": {"Test": ["x"], "Interval": 1, "Timeout": 1, "StartPeriod": 1, "StartInterval": 1, "Retries": 1},
                "Domainname": "x", "OnBuild": ["x"], "ArgsEscaped": true, "Shell": ["x"], "StopTimeout": 1}),
            |sent: &Value| serde_json::to_value(go::decode::<Config>(sent).unwrap()).unwrap(),
        ),
    ] as [(Value, fn(&Value) -> Value); 2]
    {
        let kept = kept(&sent);
        for (field, value) in sent.as_object().unwrap() {
            assert_eq!(kept[field], *value, "{field}");
        }
    }
}

#[test]
fn what_cannot_be_done_yet_is_refused_by_name() {
    let refusal = refusal(json!({}), json!({"Cgroup": "container:x"}));
    assert_eq!(refusal.kind, ErrorKind::NotImplemented);
    assert!(refusal.message.starts_with("Cgroup"), "{}", refusal.message);
}
