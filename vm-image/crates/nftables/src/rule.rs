//! Rules: matches, then what is to be done.

use std::net::IpAddr;
use std::num::NonZeroU64;

use crate::key::Key;
use crate::value::Value;

/// A row of matches and statements; the first match that fails ends it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    pub(crate) steps: Vec<Step>,
    pub(crate) comment: Option<String>,
}

/// One part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Compare {
        key: Key,
        equal: bool,
        value: Value,
    },
    Masked {
        key: Key,
        mask: Value,
        equal: bool,
        value: Value,
    },
    Range {
        key: Key,
        inside: bool,
        from: Value,
        to: Value,
    },
    Lookup {
        keys: Vec<Key>,
        inside: bool,
        set: String,
    },
    OneOf {
        key: Key,
        inside: bool,
        values: Vec<Value>,
    },
    VerdictMap {
        keys: Vec<Key>,
        map: String,
    },
    Counter,
    Limit {
        rate: NonZeroU64,
        per: Per,
        burst: u32,
    },
    SetMark {
        mark: Mark,
        source: MarkSource,
    },
    NoTrack,
    Verdict(Verdict),
    Queue {
        number: u16,
    },
    #[cfg(feature = "testing")]
    LegacyQueue {
        number: u16,
    },
    Reject(Reject),
    Nat {
        source: bool,
        target: NatTarget,
    },
    Masquerade,
    Redirect {
        port: u16,
    },
    Tproxy {
        address: IpAddr,
        port: u16,
    },
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to the next chain of this hook, or to the next hook.
    Accept,
    /// It is gone.
    Drop,
    /// The calling chain goes on.
    Return,
    /// That chain, then the next rule of this one.
    Jump(String),
    /// That chain, then the calling one.
    Goto(String),
}

/// How a sender is told that its packet was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reject {
    /// A reset; TCP only.
    TcpReset,
    /// ICMP or ICMPv6: no route.
    NoRoute,
    /// ICMP or ICMPv6: port unreachable.
    PortUnreachable,
    /// ICMP or ICMPv6: host unreachable.
    HostUnreachable,
    /// ICMP or ICMPv6: prohibited by an administrator.
    AdminProhibited,
}

/// The marks there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// The packet's.
    Meta,
    /// The connection's.
    Ct,
}

/// What a mark is set to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MarkSource {
    /// This value.
    Value(u32),
    /// Some bits of a mark, and some more.
    Of {
        /// Which mark.
        mark: Mark,
        /// The bits that are taken from it.
        keep: u32,
        /// The bits that are set besides.
        set: u32,
    },
}

/// What an address is translated to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatTarget {
    /// This address, and this port unless the port stays.
    To(IpAddr, Option<u16>),
    /// Whatever a map has for these keys: addresses, or addresses with ports if `ports`. A packet that the map does not
    /// know leaves the rule.
    Map {
        /// What is looked up.
        keys: Vec<Key>,
        /// In this map.
        map: String,
        /// Whether its addresses are IPv6.
        ipv6: bool,
        /// Whether it has ports, too.
        ports: bool,
    },
}

/// The unit of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Per {
    /// A second.
    Second,
    /// A minute.
    Minute,
}

impl Rule {
    /// One that matches all packets and does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Matches if the key has this value, or lies in this net, or begins like this name.
    #[must_use]
    pub fn is(self, key: Key, value: impl Into<Value>) -> Self {
        self.step(Step::Compare { key, equal: true, value: value.into() })
    }

    /// Matches if the key has another value.
    #[must_use]
    pub fn is_not(self, key: Key, value: impl Into<Value>) -> Self {
        self.step(Step::Compare { key, equal: false, value: value.into() })
    }

    /// Matches if the bits of `mask` have this value.
    #[must_use]
    pub fn bits(self, key: Key, mask: impl Into<Value>, value: impl Into<Value>) -> Self {
        self.step(Step::Masked { key, mask: mask.into(), equal: true, value: value.into() })
    }

    /// Matches if any of the bits of `mask` is set, as in `ct state established,related`.
    #[must_use]
    pub fn any_of(self, key: Key, mask: u32) -> Self {
        self.step(Step::Masked { key, mask: mask.into(), equal: false, value: 0u32.into() })
    }

    /// Matches if none of the bits of `mask` is set.
    #[must_use]
    pub fn none_of(self, key: Key, mask: u32) -> Self {
        self.step(Step::Masked { key, mask: mask.into(), equal: true, value: 0u32.into() })
    }

    /// Matches if the value lies between these, both included. Of addresses and ports only: they are ordered as they
    /// stand in the packet.
    #[must_use]
    pub fn between(self, key: Key, from: impl Into<Value>, to: impl Into<Value>) -> Self {
        self.step(Step::Range { key, inside: true, from: from.into(), to: to.into() })
    }

    /// Matches if the keys' values are in a set of the table.
    #[must_use]
    pub fn in_set(self, keys: impl Into<Vec<Key>>, set: impl Into<String>) -> Self {
        self.step(Step::Lookup { keys: keys.into(), inside: true, set: set.into() })
    }

    /// Matches if the keys' values are not in a set of the table.
    #[must_use]
    pub fn not_in_set(self, keys: impl Into<Vec<Key>>, set: impl Into<String>) -> Self {
        self.step(Step::Lookup { keys: keys.into(), inside: false, set: set.into() })
    }

    /// Matches if the value is one of these or lies in one of these nets.
    #[must_use]
    pub fn one_of<V: Into<Value>>(self, key: Key, values: impl IntoIterator<Item = V>) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.step(Step::OneOf { key, inside: true, values })
    }

    /// Matches if the value is none of these and lies in none of these nets.
    #[must_use]
    pub fn not_one_of<V: Into<Value>>(self, key: Key, values: impl IntoIterator<Item = V>) -> Self {
        let values = values.into_iter().map(Into::into).collect();
        self.step(Step::OneOf { key, inside: false, values })
    }

    /// Ends with the verdict that a map of the table has for the keys' values; goes on if it has none.
    #[must_use]
    pub fn verdict_map(self, keys: impl Into<Vec<Key>>, map: impl Into<String>) -> Self {
        self.step(Step::VerdictMap { keys: keys.into(), map: map.into() })
    }

    /// Counts packets and bytes.
    #[must_use]
    pub fn counter(self) -> Self {
        self.step(Step::Counter)
    }

    /// Matches so often, and so often at once.
    #[must_use]
    pub fn limit(self, rate: NonZeroU64, per: Per, burst: u32) -> Self {
        self.step(Step::Limit { rate, per, burst })
    }

    /// Sets a mark.
    #[must_use]
    pub fn set_mark(self, mark: Mark, source: MarkSource) -> Self {
        self.step(Step::SetMark { mark, source })
    }

    /// Leaves the packet's connection unfollowed; in chains before it is.
    #[must_use]
    pub fn no_track(self) -> Self {
        self.step(Step::NoTrack)
    }

    /// Ends with a verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.step(Step::Verdict(verdict))
    }

    /// Ends with [`Verdict::Accept`].
    #[must_use]
    pub fn accept(self) -> Self {
        self.verdict(Verdict::Accept)
    }

    /// Ends with [`Verdict::Drop`].
    #[must_use]
    pub fn drop(self) -> Self {
        self.verdict(Verdict::Drop)
    }

    /// Ends with [`Verdict::Return`].
    #[must_use]
    pub fn return_(self) -> Self {
        self.verdict(Verdict::Return)
    }

    /// Goes on in a chain and comes back.
    #[must_use]
    pub fn jump(self, chain: impl Into<String>) -> Self {
        self.verdict(Verdict::Jump(chain.into()))
    }

    /// Goes on in a chain and does not come back.
    #[must_use]
    pub fn goto(self, chain: impl Into<String>) -> Self {
        self.verdict(Verdict::Goto(chain.into()))
    }

    /// Hands the packet to a program that reads this queue, and drops it while there is none.
    #[must_use]
    pub fn queue(self, number: u16) -> Self {
        self.step(Step::Queue { number })
    }

    /// [`Rule::queue`] by way of the `NFQUEUE` of iptables, for kernels that have no expression for it.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn legacy_queue(self, number: u16) -> Self {
        self.step(Step::LegacyQueue { number })
    }

    /// Refuses the packet and tells its sender.
    #[must_use]
    pub fn reject(self, how: Reject) -> Self {
        self.step(Step::Reject(how))
    }

    /// Translates the destination. In an `inet` table say the family before.
    #[must_use]
    pub fn dnat(self, target: NatTarget) -> Self {
        self.step(Step::Nat { source: false, target })
    }

    /// Translates the source. In an `inet` table say the family before.
    #[must_use]
    pub fn snat(self, target: NatTarget) -> Self {
        self.step(Step::Nat { source: true, target })
    }

    /// Translates the source to the address of the interface by which the packet leaves.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.step(Step::Masquerade)
    }

    /// Translates the destination to this system and a port of it.
    #[must_use]
    pub fn redirect(self, port: u16) -> Self {
        self.step(Step::Redirect { port })
    }

    /// Gives the packet, unchanged, to the transparent socket that listens there. Say the transport protocol before.
    #[must_use]
    pub fn tproxy(self, address: IpAddr, port: u16) -> Self {
        self.step(Step::Tproxy { address, port })
    }

    /// Adds words for people, 127 bytes at most.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}
