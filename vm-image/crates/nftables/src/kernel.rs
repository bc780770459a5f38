//! The conversation with the kernel (netlink(7), `NETLINK_NETFILTER`).

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, bind, getsockname, recv, send};

use crate::attr;
use crate::batch::Batch;
use crate::table::{Family, Table};

/// A transaction is one message to the kernel, which must fit into the socket's buffer; thousands of published ports do.
const BUFFER_BYTES: usize = 16 << 20;
/// One answer carries at most a refused message's header and the kernel's words.
const RECEIVE_BYTES: usize = 64 * 1024;

const NLMSG_ERROR: u16 = 2;
/// `NLM_F_CAPPED`: the refused message is not repeated behind its header.
const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow.
const EXTENDED: u16 = 0x200;
const HEADER: usize = 16;

/// What the kernel refused, and why.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's packet filter refused to {asked}{}", explained(.words))]
pub struct KernelError {
    /// The change: the rule as text, or the table, chain or set.
    asked: String,
    /// The kernel's own explanation; most refusals have none.
    words: Option<String>,
    source: io::Error,
}

fn explained(words: &Option<String>) -> String {
    words.as_ref().map(|words| format!(" ({words})")).unwrap_or_default()
}

impl KernelError {
    fn of(asked: &str, source: impl Into<io::Error>) -> Self {
        Self { asked: asked.into(), words: None, source: source.into() }
    }

    /// The kernel's reason: `ENOENT` may also mean that it has not been built with what a rule needs.
    pub fn reason(&self) -> &io::Error {
        &self.source
    }
}

/// The packet filter of one network namespace.
#[derive(Debug)]
pub struct Kernel {
    socket: OwnedFd,
}

impl Kernel {
    /// Opens that of the calling thread's network namespace, where it stays whichever thread uses it.
    ///
    /// # Errors
    /// What `socket(2)` says: `EPROTONOSUPPORT` from a kernel without netfilter.
    pub fn open() -> io::Result<Self> {
        let socket = caisson_sys::netfilter::socket(BUFFER_BYTES)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self { socket })
    }

    /// The number by which the kernel tells others who has changed something. Nobody else has it while this lives.
    pub(crate) fn port_id(&self) -> io::Result<u32> {
        Ok(SocketAddrNetlink::try_from(getsockname(&self.socket)?)?.pid())
    }

    /// Makes the kernel's table of this name equal to this one, whatever it was before. Counters begin anew; connections
    /// that are followed go on.
    ///
    /// # Errors
    /// The first thing that the kernel refused. The old table is then still there, unchanged.
    pub fn replace(&self, table: &Table) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        batch.delete_table(table.family, &table.name, true);
        batch.add_table(table);
        self.commit(batch)
    }

    /// Removes a table; one that does not exist is removed already.
    ///
    /// # Errors
    /// The kernel's refusal, `EPERM` for instance.
    pub fn delete(&self, family: Family, name: &str) -> Result<(), KernelError> {
        let mut batch = Batch::new();
        batch.delete_table(family, name, true);
        self.commit(batch)
    }

    /// Whether there is a table of this name, whatever is in it.
    ///
    /// # Errors
    /// The kernel's refusal, `EPERM` for instance.
    pub fn has_table(&self, family: Family, name: &str) -> Result<bool, KernelError> {
        match self.ask(Batch::question(family, name)) {
            Ok(()) => Ok(true),
            Err(error) if Errno::from_io_error(&error.source) == Some(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn commit(&self, batch: Batch) -> Result<(), KernelError> {
        self.ask(batch.end())
    }

    /// The kernel works off all messages before `send` returns, so its answers are there then.
    fn ask(&self, batch: Batch) -> Result<(), KernelError> {
        let failed = |error: Errno| KernelError::of("take a change", error);
        send(&self.socket, &batch.bytes, SendFlags::empty()).map_err(failed)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        let (mut acknowledged, mut refused) = (false, None);
        loop {
            match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, length)) => {
                    for answer in messages(&buffer[..length]).filter_map(answer) {
                        match answer.error {
                            None => acknowledged = true,
                            Some(error) if refused.is_none() => {
                                let asked = batch.asked.get(answer.number).cloned().unwrap_or_default();
                                refused = Some(KernelError { asked, words: answer.words, source: error });
                            }
                            Some(_) => {}
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // What is left of the answers is not to be taken for those to the next question.
                Err(Errno::NOBUFS) => {
                    refused.get_or_insert_with(|| failed(Errno::NOBUFS));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        match refused {
            Some(refused) => Err(refused),
            None if acknowledged => Ok(()),
            None => Err(KernelError::of("answer", io::Error::from(io::ErrorKind::UnexpectedEof))),
        }
    }
}

/// The kernel's word on one message.
struct Answer {
    number: usize,
    error: Option<io::Error>,
    words: Option<String>,
}

/// The messages of a datagram, each with its header; what is malformed ends the row.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// `struct nlmsgerr` behind its header: the code, the header of the message, then attributes.
fn answer(message: &[u8]) -> Option<Answer> {
    let u16_at = |at: usize| Some(u16::from_ne_bytes(*message.get(at..)?.first_chunk()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(*message.get(at..)?.first_chunk()?));
    if u16_at(4)? != NLMSG_ERROR {
        return None;
    }
    let (flags, code) = (u16_at(6)?, u32_at(HEADER)? as i32);
    let original_length = u32_at(HEADER + 4)? as usize;
    let number = u32_at(HEADER + 12)? as usize;
    let repeated =
        if flags & CAPPED != 0 || code == 0 { HEADER } else { original_length.next_multiple_of(4) };
    let words = (flags & EXTENDED != 0).then(|| words(message.get(HEADER + 4 + repeated..)?)).flatten();
    let error = (code != 0).then(|| io::Error::from_raw_os_error(code.wrapping_neg()));
    Some(Answer { number, error, words })
}

/// `NLMSGERR_ATTR_MSG`.
fn words(attributes: &[u8]) -> Option<String> {
    attr::find(attributes, 1).map(attr::text)
}
