//! Where a backend that is told of its machine's end, rather than watching for it, passes that on.

use tokio::sync::watch;

use crate::{VmEnd, VmState};

/// A machine's state, for those who hear of its end: a delegate, a callback, whoever killed it. All clones are one.
#[derive(Debug, Clone)]
pub struct Ending(watch::Sender<VmState>);

impl Default for Ending {
    fn default() -> Self {
        Self(watch::Sender::new(VmState::Running))
    }
}

impl Ending {
    /// The machine is gone. Only the first reason counts, since a killed machine also tells that it stopped.
    pub fn ended(&self, why: VmEnd) {
        self.0.send_if_modified(|state| {
            let first = !matches!(state, VmState::Ended(_));
            if first {
                *state = VmState::Ended(why);
            }
            first
        });
    }

    /// Why it is gone, if it is.
    #[must_use]
    pub fn end(&self) -> Option<VmEnd> {
        match &*self.0.borrow() {
            VmState::Ended(why) => Some(why.clone()),
            VmState::Running | VmState::Paused(_) => None,
        }
    }

    /// The machine's state, now and from now on.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<VmState> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_reason_counts() {
        let ending = Ending::default();
        assert_eq!((ending.end(), &*ending.watch().borrow()), (None, &VmState::Running));
        ending.clone().ended(VmEnd::PoweredOff);
        ending.ended(VmEnd::Killed);
        assert_eq!(ending.end(), Some(VmEnd::PoweredOff));
        assert_eq!(*ending.watch().borrow(), VmState::Ended(VmEnd::PoweredOff));
    }
}
