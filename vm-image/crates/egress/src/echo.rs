//! Pings: held like connections until the host can send them, and answered from here.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use caisson_guest_proto::{EgressRefusal, EgressRequest, read_message, write_message};
use tokio::io::split;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::flows::{Flows, Place};
use crate::host::{Flow, Host, ask};
use crate::packet::Echo;
use crate::queue::{Queue, Verdict};
use crate::raw::Raw;
use crate::tcp::verdict;

/// A program that pings no more ends its flow.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// Pings that wait; more are lost.
const WAITING: usize = 16;

/// Who pings whom, and which of its programs.
type Ends = (IpAddr, IpAddr, [u8; 2]);

/// All pings.
pub(crate) struct Pings<H> {
    host: H,
    queue: Rc<Queue>,
    flows: Flows,
    raw: Rc<Raw>,
    open: RefCell<HashMap<Ends, mpsc::Sender<Vec<u8>>>>,
}

impl<H: Host> Pings<H> {
    pub(crate) fn new(host: H, queue: Rc<Queue>, flows: Flows, raw: Rc<Raw>) -> Rc<Self> {
        Rc::new(Self { host, queue, flows, raw, open: RefCell::default() })
    }

    /// A ping, held by the kernel.
    pub(crate) fn hold(self: &Rc<Self>, packet: u32, echo: Echo) {
        let ends = (echo.from, echo.to, echo.identifier);
        if let Some(flow) = self.open.borrow().get(&ends) {
            let _ = flow.try_send(echo.rest);
            return self.queue.tell(packet, Verdict::Drop);
        }
        let Some(place) = self.flows.enter(echo.from) else {
            return self.queue.tell(packet, Verdict::Drop);
        };
        let (sender, pings) = mpsc::channel(WAITING);
        let _ = sender.try_send(echo.rest);
        self.open.borrow_mut().insert(ends, sender);
        let all = self.clone();
        tokio::task::spawn_local(async move {
            all.decide(packet, ends, pings, place).await;
            all.open.borrow_mut().remove(&ends);
        });
    }

    async fn decide(&self, packet: u32, ends: Ends, pings: mpsc::Receiver<Vec<u8>>, mut place: Place) {
        let asked = place.wait(ask(&self.host, EgressRequest::Echo { to: ends.1 })).await;
        match asked.unwrap_or(Err(EgressRefusal::TimedOut)) {
            Ok(flow) => {
                self.queue.tell(packet, Verdict::Drop);
                if let Err(error) = self.carry(flow, ends, pings).await {
                    tracing::debug!(%error, to = %ends.1, "pings could not be carried");
                }
            }
            Err(refusal) => self.queue.tell(packet, verdict(refusal)),
        }
    }

    async fn carry(
        &self,
        flow: Flow<H>,
        (from, to, identifier): Ends,
        mut pings: mpsc::Receiver<Vec<u8>>,
    ) -> io::Result<()> {
        let (mut from_host, mut to_host) = split(flow);
        let outwards = async {
            while let Ok(Some(ping)) = timeout(IDLE_LIMIT, pings.recv()).await {
                write_message(&mut to_host, &ping).await?;
            }
            Ok(())
        };
        let inwards = async {
            let mut answer = Vec::new();
            while read_message(&mut from_host, &mut answer).await? {
                self.raw.pong(to, from, identifier, &answer);
            }
            Ok(())
        };
        tokio::select! {
            ended = outwards => ended,
            ended = inwards => ended,
        }
    }
}
