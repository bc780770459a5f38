//! Seccomp profiles to BPF: our own small compiler.
//!
//! libseccomp costs 6 to 40 ms a start and is C; the crate `seccompiler` knows one architecture, one action and no errno per call, so it
//! cannot say what Docker's profile says. Compiled here, Docker's profile is a few hundred instructions in a fraction of a millisecond,
//! which is less than reading a cached one back would cost: there is no cache. Each architecture gets a binary search over ranges of call
//! numbers, so that even a call that the kernel's own "always allowed" bitmap does not cover meets about ten comparisons.
//!
//! What it means is libseccomp's and runc's meaning:
//! - a rule whose action is the default action is left out; a rule without conditions beats the ones with;
//! - conditions of one rule must all hold, but conditions on the same argument are alternatives;
//! - with an error as default action, calls newer than every call of the profile return `ENOSYS`, so that libc falls back as on an older
//!   kernel (runc, `seccomp/patchbpf`);
//! - a call of an architecture that is not in the profile kills the process;
//! - names that no architecture of ours has are ignored.
//!
//! Other than libseccomp: x32 calls return `ENOSYS`, as on a kernel that is built without them. `SCMP_ACT_NOTIFY` is refused.

mod emit;
mod table;

use std::collections::BTreeMap;

use caisson_sys::seccomp::{Instruction, flag};

use crate::spec::{Action, Condition, Rule, Seccomp};
use emit::{Verdict, emit_architecture, emit_dispatch};
use table::Column;

/// The kernel's limit on a filter (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// A filter, ready to be installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub program: Vec<Instruction>,
    /// Flags of `seccomp(2)`.
    pub flags: u64,
}

/// Why a profile cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// An action that needs a supervisor.
    #[error("seccomp action SCMP_ACT_NOTIFY is not supported")]
    Notify,
    /// Arguments have the numbers 0 to 5.
    #[error("seccomp condition on argument {0}: calls have arguments 0 to 5")]
    Argument(usize),
    /// A flag that this runtime does not know.
    #[error("seccomp flag {0} is not supported")]
    Flag(String),
    /// Too many rules.
    #[error(
        "the seccomp profile makes a filter of {0} instructions, over the kernel's limit of {MAX_INSTRUCTIONS}"
    )]
    TooLong(usize),
}

/// One architecture that the machine can run.
struct Architecture {
    name: &'static str,
    /// `AUDIT_ARCH_*`.
    audit: u32,
    column: Column,
}

/// What this machine runs, the native one first.
const ARCHITECTURES: &[Architecture; 2] = if cfg!(target_arch = "x86_64") { &X86 } else { &ARM };

const X86: [Architecture; 2] = [
    Architecture { name: "SCMP_ARCH_X86_64", audit: 0xc000_003e, column: Column::X86_64 },
    Architecture { name: "SCMP_ARCH_X86", audit: 0x4000_0003, column: Column::X86 },
];
const ARM: [Architecture; 2] = [
    Architecture { name: "SCMP_ARCH_AARCH64", audit: 0xc000_00b7, column: Column::Aarch64 },
    Architecture { name: "SCMP_ARCH_ARM", audit: 0x4000_0028, column: Column::Arm },
];

/// Where x32 calls begin, under the audit architecture of x86-64.
const X32_CALLS: u32 = 0x4000_0000;

/// Compiles a profile.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(profile: &Seccomp) -> Result<Filter, CompileError> {
    let mut sections = Vec::new();
    for (index, architecture) in ARCHITECTURES.iter().enumerate() {
        let listed = profile.architectures.iter().any(|name| name == architecture.name);
        if index == 0 || listed {
            let calls = verdicts(profile, architecture.column)?;
            sections.push((architecture.audit, emit_architecture(&ranges(profile, architecture, calls)?)));
        }
    }
    let program = emit_dispatch(&sections);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(CompileError::TooLong(program.len()));
    }
    Ok(Filter { program, flags: flags(profile)? })
}

/// runc's default is `SPEC_ALLOW`, which an explicit list replaces.
fn flags(profile: &Seccomp) -> Result<u64, CompileError> {
    let Some(listed) = &profile.flags else { return Ok(flag::SPEC_ALLOW) };
    listed.iter().try_fold(0, |flags, name| match name.as_str() {
        "SECCOMP_FILTER_FLAG_LOG" => Ok(flags | flag::LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(flags | flag::SPEC_ALLOW),
        // Of no effect: there is one thread, and no listener.
        "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Ok(flags),
        other => Err(CompileError::Flag(other.into())),
    })
}

/// What happens to each call that the profile names.
fn verdicts(profile: &Seccomp, column: Column) -> Result<BTreeMap<u32, Verdict>, CompileError> {
    let default = default_action(profile)?;
    let mut calls: BTreeMap<u32, Verdict> = BTreeMap::new();
    for rule in &profile.syscalls {
        let action = action(rule.action, rule.errno_ret.or(profile.default_errno_ret))?;
        let alternatives = alternatives(rule)?;
        for number in rule.names.iter().filter_map(|name| table::number(name, column)) {
            let verdict = calls.entry(number).or_insert_with(|| Verdict::new(default));
            if action != default {
                verdict.add(&alternatives, action);
            }
        }
    }
    Ok(calls)
}

/// The groups of conditions under which a rule holds; one empty group for "always".
fn alternatives(rule: &Rule) -> Result<Vec<Vec<Condition>>, CompileError> {
    let conditions = &rule.args;
    if let Some(bad) = conditions.iter().find(|condition| condition.index > 5) {
        return Err(CompileError::Argument(bad.index));
    }
    let repeated = (0..6).any(|index| conditions.iter().filter(|arg| arg.index == index).count() > 1);
    if repeated {
        Ok(conditions.iter().map(|condition| vec![condition.clone()]).collect())
    } else {
        Ok(vec![conditions.clone()])
    }
}

/// Every call number from 0 on, as ranges: where one begins, and what happens from there.
fn ranges(
    profile: &Seccomp,
    architecture: &Architecture,
    calls: BTreeMap<u32, Verdict>,
) -> Result<Vec<(u32, Verdict)>, CompileError> {
    let default = default_action(profile)?;
    let newest = calls.keys().next_back().copied();
    let mut ranges = vec![(0, Verdict::new(default))];
    for (number, verdict) in calls {
        push(&mut ranges, number, verdict);
        push(&mut ranges, number + 1, Verdict::new(default));
    }
    let no_such_call = action(Action::Errno, Some(libc::ENOSYS as u32))?;
    if let Some(newest) = newest
        && profile.default_action == Action::Errno
    {
        push(&mut ranges, newest + 1, Verdict::new(no_such_call));
    }
    if architecture.column == Column::X86_64 {
        push(&mut ranges, X32_CALLS, Verdict::new(no_such_call));
    }
    Ok(ranges)
}

/// Adds a range, replacing an empty one and joining it to an equal one.
fn push(ranges: &mut Vec<(u32, Verdict)>, start: u32, verdict: Verdict) {
    if ranges.last().is_some_and(|(last, _)| *last == start) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, last)| *last != verdict) {
        ranges.push((start, verdict));
    }
}

fn default_action(profile: &Seccomp) -> Result<u32, CompileError> {
    action(profile.default_action, profile.default_errno_ret)
}

/// An action as the kernel takes it: `SECCOMP_RET_*` and its data, which is `EPERM` where an error is not named.
fn action(action: Action, errno: Option<u32>) -> Result<u32, CompileError> {
    let errno = errno.unwrap_or(libc::EPERM as u32) & libc::SECCOMP_RET_DATA;
    Ok(match action {
        Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::Trap => libc::SECCOMP_RET_TRAP,
        Action::Errno => libc::SECCOMP_RET_ERRNO | errno,
        Action::Trace => libc::SECCOMP_RET_TRACE | errno,
        Action::Log => libc::SECCOMP_RET_LOG,
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Notify => return Err(CompileError::Notify),
    })
}

#[cfg(test)]
mod tests;
