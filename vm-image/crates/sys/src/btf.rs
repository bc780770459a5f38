//! What the kernel tells of its own functions: BTF, as far as to find one by its name (`Documentation/bpf/btf.rst`).

/// `BTF_MAGIC` of `linux/btf.h`.
const MAGIC: u16 = 0xeb9f;
const KIND_FUNCTION: u32 = 12;
/// `struct btf_type`, in bytes.
const TYPE: usize = 12;

/// The number of a function, from 1 on; `None` if there is none of this name, or what is told cannot be understood.
pub(crate) fn function(btf: &[u8], name: &str) -> Option<u32> {
    let word = |at: usize| Some(u32::from_ne_bytes(*btf.get(at..)?.first_chunk()?));
    if u16::from_ne_bytes(*btf.first_chunk()?) != MAGIC {
        return None;
    }
    let header = word(4)? as usize;
    let section = |offset: usize, length: usize| {
        let start = header.checked_add(word(offset)? as usize)?;
        btf.get(start..start.checked_add(word(length)? as usize)?)
    };
    let (types, strings) = (section(8, 12)?, section(16, 20)?);
    let is_wanted = |at: usize| {
        let rest = strings.get(at..).and_then(|rest| rest.strip_prefix(name.as_bytes()));
        rest.and_then(<[u8]>::first) == Some(&0)
    };
    let mut at = 0;
    for number in 1.. {
        let kind = types.get(at..at + TYPE)?;
        let field = |at: usize| kind.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let information = field(4)?;
        if information >> 24 & 0x1f == KIND_FUNCTION && is_wanted(field(0)? as usize) {
            return Some(number);
        }
        at += TYPE + rest_of(information >> 24 & 0x1f, information as usize & 0xffff)?;
    }
    None
}

/// What follows a type of this kind with so many members, in bytes.
fn rest_of(kind: u32, members: usize) -> Option<usize> {
    Some(match kind {
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, sections, wide enumerations.
        4 | 5 | 15 | 19 => members * 12,
        // Enumerations, prototypes.
        6 | 13 => members * 8,
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prototype, functions of these names, and a structure in front of them.
    fn btf(names: &[&str]) -> Vec<u8> {
        let (mut types, mut strings) = (Vec::new(), vec![0]);
        let mut add = |name: u32, kind: u32, members: u32, rest: usize| {
            [name, kind << 24 | members, 0].iter().for_each(|word| types.extend(word.to_ne_bytes()));
            types.resize(types.len() + rest, 0xff);
        };
        add(0, 4, 2, 24);
        add(0, 13, 1, 8);
        for name in names {
            add(u32::try_from(strings.len()).unwrap(), KIND_FUNCTION, 0, 0);
            strings.extend(name.as_bytes());
            strings.push(0);
        }
        let lengths = [types.len(), strings.len()].map(|length| u32::try_from(length).unwrap());
        let mut all = [MAGIC.to_ne_bytes(), [1, 0]].concat();
        for word in [24, 0, lengths[0], lengths[0], lengths[1]] {
            all.extend(word.to_ne_bytes());
        }
        [all, types, strings].concat()
    }

    #[test]
    fn a_function_is_found_by_its_whole_name() {
        let btf = btf(&["socket_create_later", "socket", "socket_create"]);
        assert_eq!(function(&btf, "socket_create"), Some(5));
        assert_eq!(function(&btf, "socket"), Some(4));
        assert_eq!(function(&btf, "create"), None);
    }

    #[test]
    fn what_is_cut_or_no_btf_has_no_functions() {
        let whole = btf(&["socket_create"]);
        for length in 0..whole.len() {
            assert_eq!(function(&whole[..length], "socket_create"), None, "{length}");
        }
        assert_eq!(function(&[0xff; 100], "socket_create"), None);
    }

    #[test]
    fn this_kernel_s_own_is_understood() {
        match std::fs::read("/sys/kernel/btf/vmlinux") {
            Ok(btf) => assert!(function(&btf, "do_exit").is_some()),
            Err(error) => eprintln!("skipped: this kernel tells no BTF ({error})"),
        }
    }
}
