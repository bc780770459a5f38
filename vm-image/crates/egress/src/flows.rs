//! How many flows there are: a limit for all, and one for each source, so that no container takes all places.
//!
//! A flow that waits for the host's answer gives way to a new one where there is no place left: who has many of them waits
//! for ports that nobody answers, and neither its neighbours nor a new
//! container with its address are to wait until they give up. The oldest goes; of those of its own source if it is the source that
//! has no place left, else of those of the source that has most. Its first packet is lost, as if nobody had answered.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;

use caisson_guest_proto::MAX_FLOWS;
use tokio::sync::oneshot;

/// The most flows of one source.
const MAX_OF_SOURCE: usize = 8_000;
/// The most flows of one source that wait for the host's answer.
const MAX_PENDING: usize = 5_000;

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    of: HashMap<IpAddr, Of>,
    /// How many there ever were.
    entered: u64,
}

#[derive(Debug, Default)]
struct Of {
    flows: usize,
    /// By their age; each is told when it has to go.
    pending: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Counts {
    /// Whose oldest has to go for a new flow of this source: `None` if there is room.
    fn in_the_way(&self, source: IpAddr) -> Option<IpAddr> {
        let own = self.of.get(&source);
        if own.is_some_and(|own| own.flows >= MAX_OF_SOURCE || own.pending.len() >= MAX_PENDING) {
            return Some(source);
        }
        let greediest = || self.of.iter().max_by_key(|(_, of)| of.pending.len()).map(|(greedy, _)| *greedy);
        if self.all >= MAX_FLOWS { greediest() } else { None }
    }

    /// Sends away the oldest that waits; whether there was one.
    fn displace(&mut self, source: IpAddr) -> bool {
        let Some((_, told)) = self.of.get_mut(&source).and_then(|of| of.pending.pop_first()) else {
            return false;
        };
        // One that is about to be dropped needs not be told.
        let _ = told.send(());
        self.leave(source);
        true
    }

    fn leave(&mut self, source: IpAddr) {
        self.all -= 1;
        if let Some(of) = self.of.get_mut(&source) {
            of.flows -= 1;
            if of.flows == 0 {
                self.of.remove(&source);
            }
        }
    }
}

/// All flows. Clones are one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flows(Rc<RefCell<Counts>>);

/// A flow's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    flows: Flows,
    source: IpAddr,
    waits: Waits,
}

/// What a place waits for.
#[derive(Debug)]
enum Waits {
    /// The host's answer, unless it is told first that it has to go.
    Pending(u64, oneshot::Receiver<()>),
    /// Nothing: it is a flow's until that ends.
    Decided,
    /// Nothing: it is somebody else's.
    Displaced,
}

impl Flows {
    /// A place for a flow that waits for the host's answer; `None` if there is none, and none that gives way.
    pub(crate) fn enter(&self, source: IpAddr) -> Option<Place> {
        let counts = &mut *self.0.borrow_mut();
        while let Some(greedy) = counts.in_the_way(source) {
            if !counts.displace(greedy) {
                return None;
            }
        }
        let (tell, told) = oneshot::channel();
        let number = counts.entered;
        counts.entered += 1;
        counts.all += 1;
        let of = counts.of.entry(source).or_default();
        of.flows += 1;
        of.pending.insert(number, tell);
        Some(Place { flows: self.clone(), source, waits: Waits::Pending(number, told) })
    }
}

impl Place {
    /// The host's answer to what this place is for; `None` if it had to give way to another one.
    pub(crate) async fn wait<T>(&mut self, answer: impl Future<Output = T>) -> Option<T> {
        let Waits::Pending(number, told) = &mut self.waits else { return Some(answer.await) };
        let number = *number;
        let answer = tokio::select! {
            biased;
            Ok(()) = told => {
                self.waits = Waits::Displaced;
                return None;
            }
            answer = answer => answer,
        };
        self.waits = Waits::Decided;
        if let Some(of) = self.flows.0.borrow_mut().of.get_mut(&self.source) {
            of.pending.remove(&number);
        }
        Some(answer)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let counts = &mut *self.flows.0.borrow_mut();
        match self.waits {
            Waits::Decided => counts.leave(self.source),
            Waits::Displaced => {}
            Waits::Pending(number, _) => {
                let pending = counts.of.get_mut(&self.source).and_then(|of| of.pending.remove(&number));
                // One that was displaced has left already.
                if pending.is_some() {
                    counts.leave(self.source);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "10.0.0.1";
    const OTHER: &str = "10.0.0.2";

    fn enter(flows: &Flows, source: &str) -> Place {
        flows.enter(source.parse().unwrap()).expect("a place")
    }

    async fn decide(place: &mut Place) {
        assert!(place.wait(std::future::ready(())).await.is_some());
    }

    /// Whether it had to give way.
    async fn is_displaced(place: &mut Place) -> bool {
        tokio::select! {
            biased;
            answer = place.wait(std::future::pending::<()>()) => answer.is_none(),
            () = std::future::ready(()) => false,
        }
    }

    fn counted(flows: &Flows) -> (usize, usize) {
        let counts = flows.0.borrow();
        (counts.all, counts.of.values().map(|of| of.pending.len()).sum())
    }

    #[tokio::test]
    async fn one_source_leaves_places_for_the_others_and_all_come_back() {
        let flows = Flows::default();
        let mut places = Vec::new();
        for _ in 0..MAX_OF_SOURCE {
            let mut place = enter(&flows, ONE);
            decide(&mut place).await;
            places.push(place);
        }
        assert!(flows.enter(ONE.parse().unwrap()).is_none(), "what is decided does not give way");
        for _ in MAX_OF_SOURCE..MAX_FLOWS {
            let mut place = enter(&flows, OTHER);
            decide(&mut place).await;
            places.push(place);
        }
        assert!(flows.enter(OTHER.parse().unwrap()).is_none());
        drop(places);
        assert_eq!(counted(&flows), (0, 0));
        assert_eq!(flows.0.borrow().of.len(), 0);
    }

    #[tokio::test]
    async fn the_oldest_that_waits_gives_way_to_a_new_one_of_its_source() {
        let flows = Flows::default();
        let mut crowd: Vec<Place> = (0..MAX_PENDING).map(|_| enter(&flows, ONE)).collect();
        let mut new = enter(&flows, ONE);
        assert_eq!(counted(&flows), (MAX_PENDING, MAX_PENDING));
        assert!(is_displaced(&mut crowd[0]).await && !is_displaced(&mut crowd[1]).await);
        decide(&mut new).await;
        assert_eq!(counted(&flows), (MAX_PENDING, MAX_PENDING - 1));
        // One that is dropped before it could hear of it has left once, and not twice.
        drop(crowd);
        drop(new);
        assert_eq!(counted(&flows), (0, 0));
    }

    #[tokio::test]
    async fn where_all_is_full_the_source_that_waits_most_gives_way() {
        let flows = Flows::default();
        let mut greedy: Vec<Place> = (0..MAX_PENDING).map(|_| enter(&flows, ONE)).collect();
        let mut modest: Vec<Place> = (0..MAX_PENDING - 1).map(|_| enter(&flows, OTHER)).collect();
        let new: Vec<Place> = (counted(&flows).0..=MAX_FLOWS).map(|_| enter(&flows, "10.0.0.3")).collect();
        assert!(is_displaced(&mut greedy[0]).await && !is_displaced(&mut modest[0]).await);
        assert_eq!(counted(&flows).0, MAX_FLOWS);
        drop((greedy, modest, new));
        assert_eq!(counted(&flows), (0, 0));
    }
}
