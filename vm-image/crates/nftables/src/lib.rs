//! Rules of the kernel's packet filter (nf_tables), over netlink: no `nft` program, no C library.
//!
//! A [`Table`] is a value: chains, sets and maps, and rules that read like sentences. [`Kernel::replace`] makes the
//! kernel's table of that name equal to it in one transaction: packets meet the old rules or the new ones, never a
//! half of both, and a refused change changes nothing. The error names the rule that the kernel refused and carries the
//! kernel's own words where it has some. A table is printed as `nft list` would write it.
//!
//! ```no_run
//! use caisson_nftables::{Chain, ChainKind, Family, Hook, Kernel, Key, Rule, Table, priority};
//!
//! let table = Table::new(Family::Inet, "example").chain(
//!     Chain::base("input", ChainKind::Filter, Hook::Input, priority::FILTER)
//!         .rule(Rule::new().is(Key::IifName, "lo").accept())
//!         .rule(Rule::new().is(Key::TcpDport, 80u16).counter().drop().comment("no web here")),
//! );
//! Kernel::open()?.replace(&table)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a match presupposes is put before it, as `nft` does: a TCP port is only looked for in TCP, an IPv4 address
//! only in IPv4.
//!
//! A transaction replaces a table whole, so no rule is ever read back first and no generation has to be compared; whether
//! a table is there at all can be asked, and what others change in it is [heard](Changes). What is deliberately not here: reading rules of others, stateful objects, flow tables, timeouts of elements. Constants are
//! those of `linux/netfilter/nf_tables.h`.

mod attr;
mod batch;
mod changes;
mod encode;
mod kernel;
mod key;
mod rule;
mod set;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use changes::{Change, Changes};
pub use kernel::{Kernel, KernelError};
pub use key::{Direction, Key, ct_state, ct_status, fib_type, ip_proto, nfproto, tcp_flag};
pub use rule::{Mark, MarkSource, NatTarget, Per, Reject, Rule, Verdict};
pub use set::{Datum, Element, Set, SetKind};
pub use table::{Chain, ChainKind, Family, Hook, Policy, Table, priority};
pub use value::Value;
