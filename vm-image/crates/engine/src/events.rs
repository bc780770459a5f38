//! What happened, for those who follow: a bus with a short memory.
//!
//! Like dockerd's: the last [`KEPT`] events can be asked for by time, and followers get what comes after. A follower takes
//! the memory and its place in the stream in one step, so that nothing is missed or seen twice between the two.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use caisson_docker_api::events::{Actor, Message};
use caisson_docker_api::time::Timestamp;
use tokio::sync::broadcast;

/// How many past events can be asked for, as in dockerd.
const KEPT: usize = 256;
/// How far a follower may fall behind before it loses events; it is then cut off.
const BACKLOG: usize = 4096;

/// The bus.
pub(crate) struct Events {
    past: Mutex<VecDeque<Message>>,
    live: broadcast::Sender<Message>,
}

impl Default for Events {
    fn default() -> Self {
        Self { past: Mutex::default(), live: broadcast::Sender::new(BACKLOG) }
    }
}

impl Events {
    /// Tells everybody.
    pub(crate) fn publish(&self, kind: &str, action: &str, id: &str, attributes: BTreeMap<String, String>) {
        let message = message(kind, action, id, attributes, Timestamp::now());
        let mut past = self.past();
        if past.len() == KEPT {
            past.pop_front();
        }
        past.push_back(message.clone());
        // Nobody may be listening: that is no failure.
        let _ = self.live.send(message);
    }

    /// What is remembered, and all that comes after it.
    pub(crate) fn subscribe(&self) -> (Vec<Message>, broadcast::Receiver<Message>) {
        let past = self.past();
        (past.iter().cloned().collect(), self.live.subscribe())
    }

    /// How many follow.
    pub(crate) fn listeners(&self) -> usize {
        self.live.receiver_count()
    }

    fn past(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn message(
    kind: &str,
    action: &str,
    id: &str,
    attributes: BTreeMap<String, String>,
    at: Timestamp,
) -> Message {
    let is_container = kind == "container";
    let legacy = is_container || kind == "image";
    let old = |text: &str| if legacy { text.to_owned() } else { String::new() };
    Message {
        status: old(action),
        id: old(id),
        from: if is_container { attributes.get("image").cloned().unwrap_or_default() } else { String::new() },
        kind: kind.to_owned(),
        action: action.to_owned(),
        actor: Actor { id: id.to_owned(), attributes },
        scope: "local".to_owned(),
        time: at.unix_seconds(),
        time_nano: at.unix_nanos(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_bounded_and_the_rest_is_live() {
        let events = Events::default();
        for n in 0..KEPT + 3 {
            events.publish("container", "start", &n.to_string(), BTreeMap::new());
        }
        let (past, mut live) = events.subscribe();
        assert_eq!((past.len(), past[0].actor.id.as_str()), (KEPT, "3"));
        events.publish("network", "connect", "net", BTreeMap::new());
        let message = live.try_recv().unwrap();
        assert_eq!((message.action.as_str(), message.status.as_str()), ("connect", ""));
        assert!(live.try_recv().is_err());
    }

    #[test]
    fn old_fields_repeat_the_new_ones_for_containers() {
        let attributes = BTreeMap::from([("image".to_owned(), "busybox".to_owned())]);
        let m = message("container", "die", "c1", attributes, Timestamp::from_unix_nanos(1_500_000_000));
        assert_eq!((m.status.as_str(), m.id.as_str(), m.from.as_str()), ("die", "c1", "busybox"));
        assert_eq!((m.time, m.time_nano), (1, 1_500_000_000));
    }
}
