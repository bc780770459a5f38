//! The default profile without raw sockets, but for those of pings.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};

/// The families of which a socket may be raw without being of the type `SOCK_RAW`, or that moby's profile has none of.
const CLOSED: [libc::c_int; 4] = [libc::AF_PACKET, libc::AF_XDP, libc::AF_ALG, libc::AF_VSOCK];
/// The families of which raw sockets are of a type of their own, and their protocol of pings: busybox' `ping` and `traceroute` make a raw
/// socket of it even where they need none.
const INTERNET: [(libc::c_int, libc::c_int); 2] =
    [(libc::AF_INET, libc::IPPROTO_ICMP), (libc::AF_INET6, libc::IPPROTO_ICMPV6)];
/// Their other types. `SOCK_PACKET`, which is not among them, is another word for `AF_PACKET`.
const TYPES: [libc::c_int; 5] =
    [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP];
/// All families, with room for some more than Linux 6.18 has.
const FAMILIES: std::ops::Range<libc::c_int> = 0..64;
/// The kernel looks at the lower half of an argument only.
const MASK: u64 = 0xffff_ffff;
/// `SOCK_TYPE_MASK` of `linux/net.h`: the rest are flags.
const TYPE_MASK: u64 = 0xf;

const DOMAIN: usize = 0;
const TYPE: usize = 1;
const PROTOCOL: usize = 2;
const LEVEL: usize = 1;
const OPTION: usize = 2;

/// Level and number of `IP_HDRINCL` and `IPV6_HDRINCL`, which has two levels (`rawv6_setsockopt` of `net/ipv6/raw.c`).
const OWN_HEADERS: [(libc::c_int, libc::c_int); 3] =
    [(libc::IPPROTO_IP, 3), (libc::IPPROTO_IPV6, 36), (libc::IPPROTO_RAW, 36)];

/// Takes raw and packet sockets out of moby's profile, but for ICMP's.
pub(super) fn without_raw(mut profile: LinuxSeccomp) -> LinuxSeccomp {
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    for rule in &mut rules {
        let rest = rule.names().iter().filter(|name| !matches!(name.as_str(), "socket" | "setsockopt"));
        let rest = rest.cloned().collect();
        rule.set_names(rest);
    }
    rules.retain(|rule| !rule.names().is_empty());
    rules.extend(sockets());
    rules.extend(options());
    profile.set_syscalls(Some(rules));
    profile
}

/// Which sockets there are. A rule's conditions on one argument are alternatives.
fn sockets() -> Vec<LinuxSyscall> {
    let of_internet = INTERNET.iter().flat_map(|&(family, ping)| {
        let of = |kind| vec![masked(DOMAIN, MASK, family), masked(TYPE, TYPE_MASK, kind)];
        let mut raw = of(libc::SOCK_RAW);
        raw.push(masked(PROTOCOL, MASK, ping));
        TYPES.map(of).into_iter().chain([raw]).map(|conditions| allow("socket", conditions))
    });
    let is_internet = |family: &libc::c_int| INTERNET.iter().any(|(other, _)| other == family);
    let is_open = |family: &libc::c_int| !CLOSED.contains(family) && !is_internet(family);
    let open = FAMILIES.filter(is_open).map(|family| masked(DOMAIN, MASK, family)).collect();
    of_internet.chain([allow("socket", open)]).collect()
}

/// Which of their options: all but the one by which a raw socket writes its own headers. The rules of a call are looked at in their order.
fn options() -> Vec<LinuxSyscall> {
    let no_option = |(level, option)| {
        let mut rule = allow("setsockopt", vec![masked(LEVEL, MASK, level), masked(OPTION, MASK, option)]);
        rule.set_action(LinuxSeccompAction::ScmpActErrno)
            .set_errno_ret(Some(libc::ENOPROTOOPT.unsigned_abs()));
        rule
    };
    // A rule without conditions would come before all others.
    let rest = allow("setsockopt", vec![masked(LEVEL, 0, 0)]);
    OWN_HEADERS.map(no_option).into_iter().chain([rest]).collect()
}

fn allow(call: &str, conditions: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(vec![call.into()]).set_action(LinuxSeccompAction::ScmpActAllow).set_args(Some(conditions));
    rule
}

/// That an argument, under the mask, is this number.
fn masked(index: usize, mask: u64, number: libc::c_int) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .value(mask)
        .value_two(u64::from(number.unsigned_abs()))
        .op(LinuxSeccompOperator::ScmpCmpMaskedEq)
        .build()
        .expect("every field has a default")
}
