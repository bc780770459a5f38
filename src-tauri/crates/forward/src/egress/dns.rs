//! The guest's DNS queries, answered by this computer's own resolver.
//!
//! Names and addresses go through the system's resolver call, as for any program here: what a VPN or the hosts file says
//! counts. That call knows no other records, so those are asked of the name servers that the system names.

mod message;
mod system;
mod upstream;

use caisson_guest_proto::{HOST_ADDRESS, read_message, write_message};
use caisson_hypervisor::VsockStream;
use message::{Answer, Code, Query, Record, kind};
use std::{io, net::IpAddr, sync::Arc};
use tokio::{
    io::{AsyncWrite, split},
    sync::{Mutex, Semaphore},
    task::JoinSet,
};
use upstream::Upstream;

/// The names of this computer. No server knows them.
const HOST_NAMES: [&str; 2] = ["host.docker.internal", "gateway.docker.internal"];

/// Calls of the system's resolver at once, each of which holds a thread. More wait.
const MAX_LOOKUPS: usize = 64;

/// Queries of a stream that wait for their answers; then no more are read.
const MAX_WAITING: usize = 512;

/// Answers queries.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    lookups: Arc<Semaphore>,
    upstream: Arc<Upstream>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self { lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)), upstream: Arc::default() }
    }
}

impl Resolver {
    /// Answers what comes out of a stream until it ends.
    pub(super) async fn serve(&self, stream: VsockStream) -> io::Result<()> {
        let (mut from, to) = split(stream);
        let to = Arc::new(Mutex::new(to));
        let mut waiting = JoinSet::new();
        let mut query = Vec::new();
        while read_message(&mut from, &mut query).await? {
            while waiting.len() >= MAX_WAITING {
                waiting.join_next().await;
            }
            let (resolver, to, query) = (self.clone(), to.clone(), query.clone());
            waiting.spawn(async move { resolver.reply(query, &to).await });
            while waiting.try_join_next().is_some() {}
        }
        Ok(())
    }

    /// What is no query gets no answer. A guest that takes none is found out by the reader.
    async fn reply(&self, query: Vec<u8>, to: &Mutex<impl AsyncWrite + Unpin>) {
        if let Some(answer) = self.answer(query).await {
            let _ = write_message(&mut *to.lock().await, &answer).await;
        }
    }

    async fn answer(&self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let query = Query::parse(&bytes)?;
        if let Some(answer) = own(&query) {
            return Some(query.answer(&answer));
        }
        let answer = match (query.class, query.kind) {
            (message::INTERNET, kind::A | kind::AAAA | kind::PTR) => self.look_up(&query).await?,
            _ => match self.upstream.ask(&query, &bytes).await {
                Ok(reply) => return Some(reply),
                Err(code) => Answer::of(code),
            },
        };
        Some(query.answer(&answer))
    }

    /// What the system's call says.
    async fn look_up(&self, query: &Query<'_>) -> Option<Answer> {
        let _lookup = self.lookups.acquire().await.ok()?;
        Some(match query.kind {
            kind::A => system::addresses(query.name.clone(), false).await,
            kind::AAAA => system::addresses(query.name.clone(), true).await,
            _ => match query.reversed() {
                Some(address) => system::name(address).await,
                None => Answer::of(Code::NoSuchName),
            },
        })
    }
}

/// What only this daemon knows.
fn own(query: &Query) -> Option<Answer> {
    let names_host = HOST_NAMES.iter().any(|name| query.name.eq_ignore_ascii_case(name));
    let points_to_host = || query.kind == kind::PTR && query.reversed() == Some(IpAddr::V4(HOST_ADDRESS));
    match query.kind {
        kind::A if names_host => Some(Answer::records(vec![Record::Address(HOST_ADDRESS.into())])),
        _ if names_host => Some(Answer::of(Code::Fine)),
        _ if points_to_host() => Some(Answer::records(vec![Record::Name(HOST_NAMES[0].to_owned())])),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
