//! A transaction: messages between a begin and an end, all of which the kernel takes or none.

use crate::attr::Attrs;
use crate::encode::{self, Encoded};
use crate::set::Set;
use crate::table::{Chain, Family, Hook, Policy, Table};

/// `NFNL_SUBSYS_NFTABLES`.
pub(crate) const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// `NLM_F_CREATE`, and at the end of what is there (`NLM_F_APPEND`).
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// The elements of one message: an attribute holds less than 64 KiB.
const ELEMENT_BYTES: usize = 32 * 1024;

mod message {
    pub(super) const NEW_TABLE: u16 = 0;
    pub(super) const GET_TABLE: u16 = 1;
    pub(super) const DELETE_TABLE: u16 = 2;
    pub(super) const NEW_CHAIN: u16 = 3;
    pub(super) const NEW_RULE: u16 = 6;
    pub(super) const NEW_SET: u16 = 9;
    pub(super) const NEW_ELEMENTS: u16 = 12;
}

/// What a message asks for, in words for its error.
pub(crate) type Asked = String;

/// The messages of a transaction as bytes, with the words for each: the n-th message has the number n.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) asked: Vec<Asked>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut batch = Self::default();
        batch.message(BATCH_BEGIN, 0, 0, SUBSYSTEM, "begin".into(), &Attrs::default());
        batch
    }

    /// A question for a table, which is no part of a transaction: the kernel acknowledges it if there is one.
    pub(crate) fn question(family: Family, name: &str) -> Self {
        let mut batch = Self::default();
        let mut attrs = Attrs::default();
        attrs.text(1, name);
        batch.change(message::GET_TABLE, ACK, family, format!("tell of table {name}"), &attrs);
        batch
    }

    /// The end of it, whose predecessor the kernel is to acknowledge.
    pub(crate) fn end(mut self) -> Self {
        self.message(BATCH_END, 0, 0, SUBSYSTEM, "end".into(), &Attrs::default());
        self
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, asked: Asked, attrs: &Attrs) {
        let length = u32::try_from(20 + attrs.0.len()).expect("a message is far under 4 GiB");
        let number = u32::try_from(self.asked.len()).expect("fewer messages than 2^32");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&number.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.bytes.extend_from_slice(&attrs.0);
        self.asked.push(asked);
    }

    fn change(&mut self, kind: u16, flags: u16, family: Family, asked: Asked, attrs: &Attrs) {
        self.message(SUBSYSTEM << 8 | kind, flags, family.number(), 0, asked, attrs);
    }

    /// Deletes a table, which must exist once `ensure` is not asked for.
    pub(crate) fn delete_table(&mut self, family: Family, name: &str, ensure: bool) {
        let mut attrs = Attrs::default();
        attrs.text(1, name);
        if ensure {
            self.change(message::NEW_TABLE, CREATE, family, format!("make sure of table {name}"), &attrs);
        }
        self.change(message::DELETE_TABLE, ACK, family, format!("delete table {name}"), &attrs);
    }

    /// Adds a table that does not exist, with all that is in it.
    pub(crate) fn add_table(&mut self, table: &Table) {
        let (family, name) = (table.family, &table.name);
        let mut attrs = Attrs::default();
        attrs.text(1, name);
        self.change(message::NEW_TABLE, CREATE | ACK, family, format!("add table {name}"), &attrs);
        for chain in &table.chains {
            self.add_chain(table, chain);
        }
        let mut next_set = 0;
        for set in &table.sets {
            next_set += 1;
            self.add_set(table, set, next_set, &format!("set {}", set.name));
        }
        for chain in &table.chains {
            self.add_rules(table, chain, &mut next_set);
        }
    }

    fn add_chain(&mut self, table: &Table, chain: &Chain) {
        let mut attrs = Attrs::default();
        attrs.text(1, &table.name).text(3, &chain.name);
        if let Some(base) = chain.base {
            attrs.nested(4, |hook| {
                hook.be32(1, hook_number(base.hook)).be32(2, base.priority as u32);
            });
            attrs.be32(5, u32::from(base.policy == Policy::Accept)).text(7, base.kind.text());
        }
        if let Some(comment) = &chain.comment {
            attrs.bytes(12, &encode::user_data(0, comment));
        }
        self.change(message::NEW_CHAIN, CREATE, table.family, format!("add chain {}", chain.name), &attrs);
    }

    fn add_set(&mut self, table: &Table, set: &Set, id: u32, what: &str) {
        let mut attrs = Attrs::default();
        encode::set(&mut attrs, &table.name, set, id);
        self.change(message::NEW_SET, CREATE, table.family, format!("add {what}"), &attrs);
        let mut list = Attrs::default();
        for element in encode::elements(set) {
            if list.0.len() + element.0.len() > ELEMENT_BYTES {
                self.add_elements(table, set, id, &std::mem::take(&mut list), what);
            }
            list.nested(1, |entry| entry.0.extend_from_slice(&element.0));
        }
        if !list.0.is_empty() {
            self.add_elements(table, set, id, &list, what);
        }
    }

    fn add_elements(&mut self, table: &Table, set: &Set, id: u32, list: &Attrs, what: &str) {
        let mut attrs = Attrs::default();
        attrs.text(1, &table.name).text(2, &set.name).be32(4, id);
        attrs.nested(3, |elements| elements.0.extend_from_slice(&list.0));
        self.change(message::NEW_ELEMENTS, CREATE, table.family, format!("fill {what}"), &attrs);
    }

    fn add_rules(&mut self, table: &Table, chain: &Chain, next_set: &mut u32) {
        for rule in &chain.rules {
            let Encoded { expressions, sets } = encode::rule(rule, table.family, next_set);
            let asked = format!("add the rule \"{rule}\" to chain {}", chain.name);
            for anonymous in &sets {
                self.add_set(table, &anonymous.set, anonymous.id, &format!("the set of \"{rule}\""));
            }
            let mut attrs = Attrs::default();
            attrs.text(1, &table.name).text(2, &chain.name);
            attrs.nested(4, |list| list.0.extend_from_slice(&expressions.0));
            if let Some(comment) = &rule.comment {
                attrs.bytes(7, &encode::user_data(0, comment));
            }
            self.change(message::NEW_RULE, CREATE | APPEND, table.family, asked, &attrs);
        }
    }
}

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}
