//! Which devices a container may use: the spec's rules as a small eBPF program on its cgroup.
//!
//! A container with Docker's default rights may make device nodes, so without these rules it could make one of the host's disk and read it. The
//! last rule that fits decides, and the rules that every container needs are appended, as runc does.

use caisson_sys::device_filter::Instruction;

use crate::failure::Failure;
use crate::spec::DeviceRule;

/// `BPF_DEVCG_*` of `linux/bpf.h`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const ALL: i32 = MAKE | READ | WRITE;

/// runc's `AllowedDevices`: making any node (using it is another matter), the default devices, pseudo-terminals.
const ALWAYS: [Rule; 10] = [
    Rule { allow: true, kind: Some(CHARACTER), major: None, minor: None, access: MAKE },
    Rule { allow: true, kind: Some(BLOCK), major: None, minor: None, access: MAKE },
    always(1, Some(3)), // null
    always(1, Some(5)), // zero
    always(1, Some(7)), // full
    always(1, Some(8)), // random
    always(1, Some(9)), // urandom
    always(5, Some(0)), // tty
    always(5, Some(2)), // ptmx
    always(136, None),  // pts
];

const fn always(major: i32, minor: Option<i32>) -> Rule {
    Rule { allow: true, kind: Some(CHARACTER), major: Some(major), minor, access: ALL }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    /// `None` is any, here and below.
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

impl Rule {
    fn is_about_everything(&self) -> bool {
        (self.kind, self.major, self.minor, self.access) == (None, None, None, ALL)
    }
}

/// The program for these rules; `None` if they allow everything, or say nothing.
pub(super) fn program(rules: &[DeviceRule]) -> Result<Option<Vec<Instruction>>, Failure> {
    let rules = rules.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let Some(last_whole) = rules.iter().rposition(Rule::is_about_everything) else {
        return Ok((!rules.is_empty()).then(|| assemble(&rules)));
    };
    let rules = &rules[last_whole..];
    let all_allowed = rules.iter().all(|rule| rule.allow);
    Ok((!all_allowed).then(|| assemble(rules)))
}

fn parse(rule: &DeviceRule) -> Result<Rule, Failure> {
    let bad = |what: &str| Failure::invalid(format!("device rule with {what}"));
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => i32::try_from(number).map(Some).map_err(|_| bad("a number out of range")),
    };
    let kind = match rule.kind.as_deref() {
        None | Some("" | "a") => None,
        Some("b") => Some(BLOCK),
        Some("c" | "u") => Some(CHARACTER),
        Some(other) => return Err(bad(&format!("type {other:?}"))),
    };
    let mut access = 0;
    for letter in rule.access.as_deref().unwrap_or_default().chars() {
        access |= match letter {
            'm' => MAKE,
            'r' => READ,
            'w' => WRITE,
            other => return Err(bad(&format!("access {other:?}"))),
        };
    }
    // No letters are all, as in runc.
    let access = if access == 0 { ALL } else { access };
    Ok(Rule { allow: rule.allow, kind, major: number(rule.major)?, minor: number(rule.minor)?, access })
}

/// Registers: 1 is the context at first and scratch then; 2 the kind, 3 the access, 4 and 5 the numbers.
fn assemble(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        load(2, 0),
        instruction(MOVE_REGISTER, 3 | 2 << 4, 0, 0),
        instruction(SHIFT_RIGHT, 3, 0, 16),
        instruction(AND, 2, 0, 0xffff),
        load(4, 4),
        load(5, 8),
    ];
    for rule in ALWAYS.iter().rev().chain(rules.iter().rev()) {
        code.extend(block(rule));
    }
    // The kernel's checker refuses instructions that cannot be reached.
    if !rules.first().is_some_and(Rule::is_about_everything) {
        code.extend(answer(false));
    }
    code
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc;
const SHIFT_RIGHT: u8 = 0x74;
const AND: u8 = 0x54;
const JUMP_EQUAL: u8 = 0x16;
const JUMP_NOT_EQUAL: u8 = 0x56;
const MOVE: u8 = 0xb7;
const EXIT: u8 = 0x95;

/// Answers if the rule fits, else goes on behind itself. A request may be for several things at once (open for reading and writing): it is
/// allowed by a rule for all of them, and denied by a rule for any.
fn block(rule: &Rule) -> Vec<Instruction> {
    let mut tests = Vec::new();
    if let Some(kind) = rule.kind {
        tests.push(instruction(JUMP_NOT_EQUAL, 2, 0, kind));
    }
    if rule.access != ALL {
        tests.push(instruction(MOVE_REGISTER, 1 | 3 << 4, 0, 0));
        let (mask, jump) =
            if rule.allow { (ALL & !rule.access, JUMP_NOT_EQUAL) } else { (rule.access, JUMP_EQUAL) };
        tests.push(instruction(AND, 1, 0, mask));
        tests.push(instruction(jump, 1, 0, 0));
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        tests.extend(number.map(|number| instruction(JUMP_NOT_EQUAL, register, 0, number)));
    }
    tests.extend(answer(rule.allow));
    let end = tests.len();
    for (at, test) in tests.iter_mut().enumerate() {
        if matches!(test.code, JUMP_EQUAL | JUMP_NOT_EQUAL) {
            test.offset = i16::try_from(end - at - 1).expect("a block has at most eight instructions");
        }
    }
    tests
}

fn answer(allow: bool) -> [Instruction; 2] {
    [instruction(MOVE, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0)]
}

fn load(register: u8, from: i16) -> Instruction {
    instruction(LOAD_WORD, register | 1 << 4, from, 0)
}

fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers, offset, immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0i32; 16];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            at += 1;
            let mut jump = |yes: bool| at += if yes { offset as usize } else { 0 };
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                MOVE_REGISTER => registers[to] = registers[from],
                SHIFT_RIGHT => registers[to] = (registers[to] as u32 >> immediate) as i32,
                AND => registers[to] &= immediate,
                MOVE => registers[to] = immediate,
                JUMP_EQUAL => jump(registers[to] == immediate),
                JUMP_NOT_EQUAL => jump(registers[to] != immediate),
                EXIT => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    /// The kernel's checker refuses programs with instructions that cannot be reached, or that run off their end.
    fn assert_whole(program: &[Instruction]) {
        let mut reached = vec![false; program.len()];
        let mut next = vec![0];
        while let Some(at) = next.pop() {
            if std::mem::replace(&mut reached[at], true) || program[at].code == EXIT {
                continue;
            }
            next.push(at + 1);
            if matches!(program[at].code, JUMP_EQUAL | JUMP_NOT_EQUAL) {
                next.push(at + 1 + program[at].offset as usize);
            }
        }
        assert!(reached.iter().all(|reached| *reached));
    }

    fn rules(json: &str) -> Vec<DeviceRule> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn dockers_rules_allow_the_harmless() {
        let dockers = serde_json::to_value(crate::defaults::device_rules()).unwrap();
        let program = program(&serde_json::from_value::<Vec<_>>(dockers).unwrap()).unwrap().unwrap();
        assert_whole(&program);
        assert!(run(&program, CHARACTER, READ | WRITE, 1, 3), "null");
        assert!(run(&program, CHARACTER, READ | WRITE, 136, 7), "a pseudo-terminal");
        assert!(run(&program, BLOCK, MAKE, 8, 0), "making a disk's node");
        assert!(!run(&program, BLOCK, READ, 8, 0), "reading a disk");
        assert!(!run(&program, CHARACTER, READ, 10, 229), "fuse");
        assert!(!run(&program, CHARACTER, READ | WRITE | MAKE, 1, 1), "memory");
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let asked = rules(
            r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":8,"access":"rw"},{"allow":false,"type":"b","major":8,"minor":1,"access":"w"}]"#,
        );
        let program = program(&asked).unwrap().unwrap();
        assert!(run(&program, BLOCK, READ | WRITE, 8, 0));
        assert!(run(&program, BLOCK, READ, 8, 1));
        assert!(!run(&program, BLOCK, READ | WRITE, 8, 1), "one of the two is denied");
        assert!(!run(&program, CHARACTER, READ, 8, 0));
    }

    #[test]
    fn without_a_first_word_everything_is_denied() {
        let program =
            program(&rules(r#"[{"allow":true,"type":"b","major":8,"access":"r"}]"#)).unwrap().unwrap();
        assert_whole(&program);
        assert!(run(&program, BLOCK, READ, 8, 0) && !run(&program, BLOCK, READ, 9, 0));
    }

    #[test]
    fn privileged_containers_need_no_program() {
        assert_eq!(program(&rules(r#"[{"allow":true,"type":"a","access":"rwm"}]"#)).unwrap(), None);
        assert_eq!(program(&[]).unwrap(), None);
        assert!(program(&rules(r#"[{"allow":true,"type":"x"}]"#)).is_err());
    }
}
