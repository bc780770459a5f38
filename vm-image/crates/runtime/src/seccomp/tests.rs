//! The filter is run by a small interpreter of classic BPF, so its meaning is tested and not its text.

use std::collections::HashSet;
use std::time::Instant;

use oci_spec::runtime::{Capability, LinuxSeccomp};

use super::*;
use crate::defaults;
use crate::spec::Operator;

const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;

fn run(filter: &Filter, audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(audit.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
    let (mut at, mut a) = (0, 0u32);
    loop {
        let Instruction { code, jt, jf, k } = filter.program[at];
        at += 1;
        let jump = |yes: bool| usize::from(if yes { jt } else { jf });
        match u32::from(code) {
            0x20 => a = u32::from_le_bytes(data[k as usize..][..4].try_into().unwrap()),
            0x54 => a &= k,
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn native(filter: &Filter, name: &str, arguments: &[u64]) -> u32 {
    let number = table::number(name, ARCHITECTURES[0].column).expect("a call of this architecture");
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    run(filter, ARCHITECTURES[0].audit, number, all)
}

fn docker(capabilities: &[Capability]) -> Filter {
    let bounding: HashSet<_> = capabilities.iter().copied().collect();
    compile(&profile(&bounding)).unwrap()
}

fn profile(bounding: &HashSet<Capability>) -> Seccomp {
    translated(&defaults::seccomp(bounding, true).unwrap().unwrap())
}

fn translated(resolved: &LinuxSeccomp) -> Seccomp {
    serde_json::from_value(serde_json::to_value(resolved).unwrap()).unwrap()
}

fn one_rule(name: &str, conditions: &[(usize, Operator, u64, u64)]) -> Filter {
    let condition = |&(index, op, value, value_two): &_| Condition { index, op, value, value_two };
    let args = conditions.iter().map(condition).collect();
    let rule = Rule { names: vec![name.into()], action: Action::Allow, errno_ret: None, args };
    compile(&Seccomp { default_action: Action::Errno, syscalls: vec![rule], ..Seccomp::default() }).unwrap()
}

#[test]
fn dockers_profile_means_what_docker_means() {
    let filter = docker(&defaults::CAPABILITIES);
    for name in ["read", "openat", "execve", "exit_group", "futex_wake", "chroot", "mseal"] {
        assert_eq!(native(&filter, name, &[]), ALLOW, "{name}");
    }
    for name in
        ["mount", "unshare", "setns", "keyctl", "add_key", "bpf", "perf_event_open", "reboot", "kexec_load"]
    {
        assert_eq!(native(&filter, name, &[]), EPERM, "{name}");
    }
    assert_eq!(native(&filter, "clone3", &[]), ENOSYS);
    assert_eq!(native(&filter, "clone", &[libc::CLONE_VM as u64]), ALLOW);
    assert_eq!(native(&filter, "clone", &[libc::CLONE_NEWUSER as u64]), EPERM);
    assert_eq!(native(&filter, "personality", &[0xffff_ffff]), ALLOW);
    assert_eq!(native(&filter, "personality", &[0x4_0000]), EPERM);
    assert_eq!(native(&filter, "socket", &[libc::AF_INET as u64]), ALLOW);
    assert_eq!(native(&filter, "socket", &[libc::AF_VSOCK as u64]), EPERM);
}

#[test]
fn raw_sockets_can_be_left_out_but_for_those_of_pings() {
    let bounding = defaults::CAPABILITIES.into();
    let filter = |raw| compile(&translated(&defaults::seccomp(&bounding, raw).unwrap().unwrap())).unwrap();
    let (with, without) = (filter(true), filter(false));
    let internet = [libc::AF_INET, libc::AF_INET6];
    for family in 0..64 {
        // Flags beside the type, as SOCK_CLOEXEC, make no difference.
        for kind in (0..16).flat_map(|kind| [kind, kind | libc::SOCK_CLOEXEC]) {
            let arguments = [family, kind].map(|argument| u64::try_from(argument).unwrap());
            let is_raw = matches!(family, libc::AF_PACKET | libc::AF_XDP)
                || internet.contains(&family) && !matches!(kind & 0xf, 1 | 2 | 4 | 5 | 6);
            let expected = if is_raw { EPERM } else { native(&with, "socket", &arguments) };
            assert_eq!(native(&without, "socket", &arguments), expected, "{family} {kind:#x}");
        }
    }
    let upper_half = 1 << 32;
    for [family, kind, protocol] in [[2, 3, 6], [2, 3, 255], [2, 3, 58], [10, 3, 1], [17, 3, 1], [2, 10, 1]] {
        assert_eq!(native(&without, "socket", &[family, kind, protocol]), EPERM, "{family} {protocol}");
        assert_eq!(native(&without, "socket", &[upper_half | family, kind, upper_half | protocol]), EPERM);
    }
    for [family, ping] in [[2, 1], [10, 58]] {
        assert_eq!(native(&without, "socket", &[family, 3, ping]), ALLOW, "pings");
    }
    for name in ["socketpair", "connect", "bind", "clone"] {
        assert_eq!(native(&without, name, &[]), native(&with, name, &[]), "{name}");
    }
    let no_option = 0x0005_0000 | libc::ENOPROTOOPT as u32;
    for [level, option] in [[0, 3], [41, 36], [255, 36]] {
        assert_eq!(native(&without, "setsockopt", &[0, level, option]), no_option, "{level}");
        assert_eq!(native(&without, "setsockopt", &[0, upper_half | level, upper_half | option]), no_option);
        for others in [[level, 1], [level, option + 1], [1, option], [6, option]] {
            assert_eq!(native(&without, "setsockopt", &[0, others[0], others[1]]), ALLOW, "{others:?}");
        }
    }
    if cfg!(target_arch = "x86_64") {
        let socketcall = |filter| run(filter, ARCHITECTURES[1].audit, 102, [1, 0, 0, 0, 0, 0]);
        assert_eq!((socketcall(&with), socketcall(&without)), (ALLOW, ALLOW), "32-bit programs");
    }
}

#[test]
fn a_capability_opens_its_calls() {
    let filter = docker(&[Capability::SysAdmin]);
    for name in ["mount", "unshare", "setns", "clone3"] {
        assert_eq!(native(&filter, name, &[]), ALLOW, "{name}");
    }
    assert_eq!(native(&filter, "init_module", &[]), EPERM);
}

#[test]
fn calls_of_the_future_do_not_exist() {
    let filter = docker(&defaults::CAPABILITIES);
    assert_eq!(run(&filter, ARCHITECTURES[0].audit, 9999, [0; 6]), ENOSYS);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn other_architectures_are_filtered_by_their_own_numbers() {
    let filter = docker(&defaults::CAPABILITIES);
    let x86 = ARCHITECTURES[1].audit;
    assert_eq!(run(&filter, x86, 3, [0; 6]), ALLOW, "read");
    assert_eq!(run(&filter, x86, 21, [0; 6]), EPERM, "mount");
    assert_eq!(run(&filter, ARCHITECTURES[0].audit, X32_CALLS, [0; 6]), ENOSYS, "x32 read");
    assert_eq!(run(&filter, 0xc000_00b7, 63, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS, "read of aarch64");
    let native_only = one_rule("read", &[]);
    assert_eq!(run(&native_only, x86, 3, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn every_comparison_is_of_64_bits() {
    use Operator as Op;
    let big = 0x2_0000_0005;
    let around = [0, 5, 6, big - 1, big, big + 1, 0x1_ffff_ffff, 0x3_0000_0000, u64::MAX];
    for value in [0, 5, big, u64::MAX] {
        for (op, holds) in [
            (Op::Equal, (|a, v| a == v) as fn(u64, u64) -> bool),
            (Op::NotEqual, |a, v| a != v),
            (Op::Less, |a, v| a < v),
            (Op::LessOrEqual, |a, v| a <= v),
            (Op::Greater, |a, v| a > v),
            (Op::GreaterOrEqual, |a, v| a >= v),
        ] {
            let filter = one_rule("ioctl", &[(2, op, value, 0)]);
            for argument in around {
                let expected = if holds(argument, value) { ALLOW } else { EPERM };
                assert_eq!(
                    native(&filter, "ioctl", &[0, 0, argument]),
                    expected,
                    "{argument:#x} {op:?} {value:#x}"
                );
            }
        }
    }
    let filter = one_rule("ioctl", &[(0, Op::MaskedEqual, 0xf_0000_000f, 0x2_0000_0005)]);
    assert_eq!(native(&filter, "ioctl", &[0xf2_0000_00f5]), ALLOW);
    assert_eq!(native(&filter, "ioctl", &[0x3_0000_0005]), EPERM);
}

#[test]
fn conditions_are_anded_but_on_one_argument_ored() {
    use Operator::Equal as Eq;
    let both = one_rule("ioctl", &[(0, Eq, 1, 0), (1, Eq, 2, 0)]);
    assert_eq!(native(&both, "ioctl", &[1, 2]), ALLOW);
    assert_eq!(native(&both, "ioctl", &[1, 3]), EPERM);
    let either = one_rule("ioctl", &[(0, Eq, 1, 0), (0, Eq, 2, 0)]);
    assert_eq!([1, 2, 3].map(|argument| native(&either, "ioctl", &[argument])), [ALLOW, ALLOW, EPERM]);
}

#[test]
fn what_cannot_be_said_is_refused() {
    let notify = Seccomp { default_action: Action::Notify, ..Seccomp::default() };
    assert_eq!(compile(&notify), Err(CompileError::Notify));
    let argument = Condition { index: 6, op: Operator::Equal, value: 0, value_two: 0 };
    let rule = Rule { names: vec!["read".into()], args: vec![argument], ..Rule::default() };
    let seventh = Seccomp { default_action: Action::Errno, syscalls: vec![rule], ..Seccomp::default() };
    assert_eq!(compile(&seventh), Err(CompileError::Argument(6)));
    let flags = Some(vec!["SECCOMP_FILTER_FLAG_NEW_LISTENER".to_owned()]);
    let listener = Seccomp { flags, ..Seccomp::default() };
    assert!(matches!(compile(&listener), Err(CompileError::Flag(_))));
}

#[test]
fn dockers_profile_is_small() {
    let profile = profile(&defaults::CAPABILITIES.into_iter().collect());
    let begun = Instant::now();
    let filter = compile(&profile).unwrap();
    println!("{} instructions, compiled in {:?}", filter.program.len(), begun.elapsed());
    assert!(filter.program.len() < 1000);
}
