//! The instructions: classic BPF over `struct seccomp_data` (`seccomp(2)`), little-endian.

use caisson_sys::seccomp::Instruction;

use crate::spec::{Condition, Operator};

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const JUMP_GREATER_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const KILL_PROCESS: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// What happens to a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    /// Conditions that must all hold, and what happens then; the first that holds wins.
    conditional: Vec<(Vec<Condition>, u32)>,
    /// What happens otherwise.
    otherwise: u32,
    /// Whether a rule without conditions has settled it.
    settled: bool,
}

impl Verdict {
    /// The same whatever the arguments.
    pub(super) fn new(action: u32) -> Self {
        Self { conditional: Vec::new(), otherwise: action, settled: false }
    }

    /// Adds a rule that holds under any of the `alternatives`.
    pub(super) fn add(&mut self, alternatives: &[Vec<Condition>], action: u32) {
        if self.settled {
            return;
        }
        if alternatives.iter().any(Vec::is_empty) {
            *self = Self { settled: true, ..Self::new(action) };
        } else {
            self.conditional.extend(alternatives.iter().map(|group| (group.clone(), action)));
        }
    }

    fn emit(&self) -> Vec<Instruction> {
        let mut code: Vec<_> =
            self.conditional.iter().flat_map(|(group, action)| emit_rule(group, *action)).collect();
        code.push(returns(self.otherwise));
        code
    }
}

/// Chooses the section of the calling architecture.
pub(super) fn emit_dispatch(sections: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    let mut code = vec![statement(LOAD, ARCHITECTURE)];
    let mut ahead: usize = 2 * sections.len() + 1; // the comparisons to come, and the kill
    let mut behind: usize = 0;
    for (audit, section) in sections {
        ahead -= 2;
        code.push(branch(JUMP_EQUAL, *audit, 0, 1));
        code.push(statement(JUMP, offset(ahead + behind)));
        behind += section.len();
    }
    code.push(returns(KILL_PROCESS));
    code.extend(sections.iter().flat_map(|(_, section)| section));
    code
}

/// One architecture's section: `ranges` are sorted and the first begins at 0.
pub(super) fn emit_architecture(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    let mut code = vec![statement(LOAD, NUMBER)];
    code.extend(search(ranges));
    code
}

fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    if let [(_, verdict)] = ranges {
        return verdict.emit();
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let start = high[0].0;
    let low = search(low);
    let mut code = match u8::try_from(low.len()) {
        Ok(length) => vec![branch(JUMP_GREATER_EQUAL, start, length, 0)],
        Err(_) => vec![branch(JUMP_GREATER_EQUAL, start, 0, 1), statement(JUMP, offset(low.len()))],
    };
    code.extend(low);
    code.extend(search(high));
    code
}

/// Where a comparison of a condition leads.
#[derive(Clone, Copy)]
enum To {
    /// The next instruction.
    On,
    /// The condition holds.
    Holds,
    /// The rule does not hold.
    Fails,
}

enum Step {
    Do(Instruction),
    Compare(u16, u32, To, To),
}

/// Returns `action` if all conditions hold, else goes on behind itself.
fn emit_rule(conditions: &[Condition], action: u32) -> Vec<Instruction> {
    let steps: Vec<Vec<Step>> = conditions.iter().map(condition).collect();
    let end = steps.iter().map(Vec::len).sum::<usize>() + 1; // where the next rule begins
    let mut code = Vec::with_capacity(end);
    for condition in steps {
        let holds = code.len() + condition.len();
        for step in condition {
            let next = code.len() + 1;
            let distance = |to| {
                let target = match to {
                    To::On => next,
                    To::Holds => holds,
                    To::Fails => end,
                };
                u8::try_from(target - next).expect("a rule has at most 6 conditions of 6 instructions")
            };
            code.push(match step {
                Step::Do(instruction) => instruction,
                Step::Compare(operation, value, yes, no) => {
                    branch(operation, value, distance(yes), distance(no))
                }
            });
        }
    }
    code.push(returns(action));
    code
}

/// BPF compares 32 bits, an argument has 64: the upper half decides, or else the lower.
fn condition(argument: &Condition) -> Vec<Step> {
    use Operator as Op;
    use To::{Fails, Holds, On};
    let value = argument.value;
    match argument.op {
        Op::Equal => masked_equal(argument, u64::MAX, value),
        Op::MaskedEqual => masked_equal(argument, value, argument.value_two),
        Op::NotEqual => halves(argument, [(JUMP_EQUAL, On, Holds)], (JUMP_EQUAL, Fails, Holds)),
        Op::Greater => ordered(argument, JUMP_GREATER, Holds, Fails),
        Op::GreaterOrEqual => ordered(argument, JUMP_GREATER_EQUAL, Holds, Fails),
        Op::Less => ordered(argument, JUMP_GREATER_EQUAL, Fails, Holds),
        Op::LessOrEqual => ordered(argument, JUMP_GREATER, Fails, Holds),
    }
}

fn ordered(argument: &Condition, lower: u16, yes: To, no: To) -> Vec<Step> {
    halves(argument, [(JUMP_GREATER, yes, To::On), (JUMP_EQUAL, To::On, no)], (lower, yes, no))
}

fn halves<const N: usize>(
    argument: &Condition,
    upper: [(u16, To, To); N],
    lower: (u16, To, To),
) -> Vec<Step> {
    let (high, low) = split(argument.value);
    let mut steps = vec![Step::Do(statement(LOAD, upper_half(argument)))];
    steps.extend(upper.map(|(operation, yes, no)| Step::Compare(operation, high, yes, no)));
    steps.push(Step::Do(statement(LOAD, lower_half(argument))));
    steps.push(Step::Compare(lower.0, low, lower.1, lower.2));
    steps
}

fn masked_equal(argument: &Condition, mask: u64, value: u64) -> Vec<Step> {
    let (mask_high, mask_low) = split(mask);
    let (high, low) = split(value & mask);
    let mut steps = Vec::new();
    for (from, mask, value) in
        [(upper_half(argument), mask_high, high), (lower_half(argument), mask_low, low)]
    {
        steps.push(Step::Do(statement(LOAD, from)));
        if mask != u32::MAX {
            steps.push(Step::Do(statement(AND, mask)));
        }
        steps.push(Step::Compare(JUMP_EQUAL, value, To::On, To::Fails));
    }
    steps
}

fn split(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}

fn lower_half(argument: &Condition) -> u32 {
    ARGUMENTS + 8 * offset(argument.index)
}

fn upper_half(argument: &Condition) -> u32 {
    lower_half(argument) + 4
}

fn offset(length: usize) -> u32 {
    u32::try_from(length).expect("a filter is far shorter than 2^32 instructions")
}

fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

fn returns(action: u32) -> Instruction {
    statement(RETURN, action)
}
