//! Networks: what is refused, and how a network and its list look.

use serde_json::{Value, json};

use super::{Call, Probe, Show, delete, get, post};

/// A network that is not made, for a reason.
const fn create(name: &'static str, body: fn() -> Value) -> Probe {
    post(name, "/networks/create", body)
}

fn in_pool(config: Value) -> Value {
    json!({"Name": "same-net", "IPAM": {"Config": [config]}})
}

fn with_option(name: &str, value: &str) -> Value {
    json!({"Name": "same-net", "Options": {name: value}})
}

pub(super) const PROBES: &[Probe] = &[
    get("network_bad_filter", "/networks?filters=%7B%22nope%22%3A%5B%22a%22%5D%7D", Show::Whole),
    get("network_bad_type", "/networks?filters=%7B%22type%22%3A%5B%22a%22%5D%7D", Show::Whole),
    get("network_bad_dangling", "/networks?filters=%7B%22dangling%22%3A%5B%22a%22%5D%7D", Show::Whole),
    delete("network_remove_unknown", "/networks/none-such"),
    delete("network_remove_built_in", "/networks/bridge"),
    post("network_prune_bad_filter", "/networks/prune?filters=%7B%22x%22%3A%5B%22a%22%5D%7D", || Value::Null),
    create("network_without_name", || json!({})),
    create("network_predefined", || json!({"Name": "host"})),
    create("network_unknown_driver", || json!({"Name": "same-net", "Driver": "nope"})),
    create("network_second_host", || json!({"Name": "same-net", "Driver": "host"})),
    create("network_second_null", || json!({"Name": "same-net", "Driver": "null"})),
    create("network_overlay", || json!({"Name": "same-net", "Driver": "overlay"})),
    create("network_isolated", || with_option("com.docker.network.bridge.gateway_mode_ipv4", "isolated")),
    create("network_bad_gateway_mode", || with_option("com.docker.network.bridge.gateway_mode_ipv6", "foo")),
    create("network_bad_inhibit", || with_option("com.docker.network.bridge.inhibit_ipv4", "foo")),
    create("network_bad_source", || with_option("com.docker.network.host_ipv4", "zz")),
    create("network_small_mtu", || with_option("com.docker.network.driver.mtu", "10")),
    create("network_on_a_device", || with_option("com.docker.network.bridge.name", "lo")),
    create("network_swarm_scope", || json!({"Name": "same-net", "Scope": "swarm"})),
    create("network_ingress", || json!({"Name": "same-net", "Ingress": true})),
    create("network_bad_mtu", || with_option("com.docker.network.driver.mtu", "abc")),
    create("network_bad_icc", || with_option("com.docker.network.bridge.enable_icc", "maybe")),
    create("network_bad_binding", || with_option("com.docker.network.bridge.host_binding_ipv4", "zz")),
    create("network_long_bridge_name", || {
        with_option("com.docker.network.bridge.name", "much-too-long-a-name")
    }),
    create("network_bad_subnet", || in_pool(json!({"Subnet": "10.1.0.0"}))),
    create("network_host_bits", || in_pool(json!({"Subnet": "10.1.0.5/24"}))),
    create("network_far_gateway", || in_pool(json!({"Subnet": "10.1.0.0/24", "Gateway": "10.2.0.1"}))),
    create("network_bad_gateway", || in_pool(json!({"Subnet": "10.1.0.0/24", "Gateway": "bad"}))),
    create("network_far_range", || in_pool(json!({"Subnet": "10.1.0.0/24", "IPRange": "10.2.0.0/24"}))),
    create("network_range_host_bits", || in_pool(json!({"Subnet": "10.1.0.0/24", "IPRange": "10.1.0.3/28"}))),
    create("network_far_auxiliary", || {
        in_pool(json!({"Subnet": "10.1.0.0/24", "AuxiliaryAddresses": {"a": "10.2.0.1"}}))
    }),
    create("network_two_mistakes", || {
        in_pool(json!({"Subnet": "10.1.0.0/24", "Gateway": "bad", "IPRange": "10.2.0.0/24"}))
    }),
    create("network_without_subnet", || in_pool(json!({"Gateway": "10.1.0.1"}))),
    create("network_unknown_ipam", || json!({"Name": "same-net", "IPAM": {"Driver": "nope"}})),
    create("network_overlapping", || in_pool(json!({"Subnet": "172.17.0.0/16"}))),
    create(
        "network_two_subnets",
        || json!({"Name": "same-net", "IPAM": {"Config": [{"Subnet": "10.3.0.0/24"}, {"Subnet": "10.4.0.0/24"}]}}),
    ),
    create("network_without_family", || json!({"Name": "same-net", "EnableIPv4": false})),
    create("network_bad_ipv6_option", || with_option("com.docker.network.enable_ipv6", "maybe")),
    create(
        "network_config_of_config",
        || json!({"Name": "same-net", "ConfigOnly": true, "ConfigFrom": {"Network": "x"}}),
    ),
    create(
        "network_config_and_internal",
        || json!({"Name": "same-net", "ConfigOnly": true, "Internal": true}),
    ),
    create("network_unknown_config", || json!({"Name": "same-net", "ConfigFrom": {"Network": "nope"}})),
    create(
        "network_config_and_labels",
        || json!({"Name": "same-net", "ConfigFrom": {"Network": "nope"}, "Labels": {"a": "b"}}),
    ),
    create(
        "network_macvlan_mode",
        || json!({"Name": "same-net", "Driver": "macvlan", "Options": {"macvlan_mode": "zz"}}),
    ),
    create(
        "network_macvlan_on_loopback",
        || json!({"Name": "same-net", "Driver": "macvlan", "Options": {"parent": "lo"}}),
    ),
    create(
        "network_macvlan_without_parent",
        || json!({"Name": "same-net", "Driver": "macvlan", "Options": {"parent": "nope0"}}),
    ),
    create(
        "network_ipvlan_mode",
        || json!({"Name": "same-net", "Driver": "ipvlan", "Options": {"ipvlan_mode": "zz"}}),
    ),
    create(
        "network_ipvlan_flag",
        || json!({"Name": "same-net", "Driver": "ipvlan", "Options": {"ipvlan_flag": "zz"}}),
    ),
    create(
        "network_vlan_without_parent",
        || json!({"Name": "same-net", "Driver": "macvlan", "Options": {"parent": "nope0.10"}}),
    ),
    create(
        "network_vlan_without_tag",
        || json!({"Name": "same-net", "Driver": "ipvlan", "Options": {"parent": "nope0.x"}}),
    ),
    create(
        "network_vlan_beyond",
        || json!({"Name": "same-net", "Driver": "macvlan", "Options": {"parent": "nope0.5000"}}),
    ),
    post(
        "network_connect_unknown_container",
        "/networks/bridge/connect",
        || json!({"Container": "none-such"}),
    ),
    post("network_connect_nobody", "/networks/bridge/connect", || json!({})),
    post("network_connect_host", "/networks/host/connect", || json!({"Container": "probe"})),
    post("network_connect_none", "/networks/none/connect", || json!({"Container": "probe"})),
    post(
        "network_connect_bad_address",
        "/networks/bridge/connect",
        || json!({"Container": "probe", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "zz"}}}),
    ),
    post(
        "network_connect_alias_on_bridge",
        "/networks/bridge/connect",
        || json!({"Container": "probe", "EndpointConfig": {"Aliases": ["a"]}}),
    ),
    post("network_disconnect_unknown", "/networks/bridge/disconnect", || json!({"Container": "none-such"})),
    post(
        "network_disconnect_unknown_by_force",
        "/networks/bridge/disconnect",
        || json!({"Container": "none-such", "Force": true}),
    ),
    post(
        "create_with_address_on_bridge",
        "/containers/create",
        || json!({"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"IPv4Address": "172.17.0.9"}}}}}),
    ),
    post(
        "create_with_bad_link_local",
        "/containers/create",
        || json!({"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"bridge": {"IPAMConfig": {"LinkLocalIPs": ["zz"]}}}}}),
    ),
    post(
        "create_with_bad_sysctl",
        "/containers/create",
        || json!({"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"bridge": {"DriverOpts": {"com.docker.network.endpoint.sysctls": "foo"}}}}}),
    ),
    post(
        "create_with_link_to_host",
        "/containers/create",
        || json!({"Image": "busybox", "HostConfig": {"Links": ["x"], "NetworkMode": "host"}}),
    ),
    post(
        "create_with_bad_mac",
        "/containers/create",
        || json!({"Image": "busybox", "NetworkingConfig": {"EndpointsConfig": {"bridge": {"MacAddress": "zz"}}}}),
    ),
    Probe {
        name: "network_settings",
        call: Call::Get("/containers/probe/json"),
        show: Show::Shape,
        except: &["/GraphDriver", "/HostConfig", "/Config", "/State"],
    },
];
