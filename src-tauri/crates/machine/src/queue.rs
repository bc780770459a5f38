//! Who waits for the machine, and for what.

use std::{sync::Arc, time::Duration};

use caisson_hypervisor::Vm;
use tokio::{sync::oneshot, time::Instant};

use crate::Unavailable;

/// Where an answer goes.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, Unavailable>>;

/// Somebody who waits for a machine that runs.
pub(crate) enum Waiter {
    /// For the machine to run.
    Start(Reply<()>),
    /// For the machine itself, with an engine that answers.
    Need(Reply<Arc<dyn Vm>>),
}

impl Waiter {
    // Those who no longer wait are not told: a dropped receiver is no failure of ours.
    fn serve(self, vm: &Arc<dyn Vm>) {
        match self {
            Self::Start(reply) => drop(reply.send(Ok(()))),
            Self::Need(reply) => drop(reply.send(Ok(vm.clone()))),
        }
    }

    pub(crate) fn refuse(self, why: Unavailable) {
        match self {
            Self::Start(reply) => drop(reply.send(Err(why))),
            Self::Need(reply) => drop(reply.send(Err(why))),
        }
    }
}

/// Who waits for the machine, and for what.
#[derive(Default)]
pub(crate) struct Queue {
    /// For this life of the machine to run.
    now: Vec<(Instant, Waiter)>,
    /// For the next life: who came when this one was ending.
    next: Vec<(Instant, Waiter)>,
    /// For this life to end.
    stop: Vec<Reply<()>>,
    /// Whether there is to be no other life.
    pub(crate) shutting_down: bool,
}

impl Queue {
    /// Somebody waits for this life.
    pub(crate) fn wait(&mut self, waiter: Waiter, now: Instant) {
        self.now.push((now, waiter));
    }

    /// Somebody waits for the next life.
    pub(crate) fn wait_for_next(&mut self, waiter: Waiter, now: Instant) {
        self.next.push((now, waiter));
    }

    /// Somebody wants this life to end and the next to begin, which is then what all wait for.
    pub(crate) fn restart(&mut self, waiter: Waiter, now: Instant) {
        self.next.append(&mut self.now);
        self.wait_for_next(waiter, now);
    }

    /// Somebody waits for the end.
    pub(crate) fn wait_for_end(&mut self, reply: Reply<()>) {
        self.stop.push(reply);
    }

    /// Whether anybody waits for the machine to run.
    pub(crate) fn wants_machine(&self) -> bool {
        !self.now.is_empty()
    }

    /// Whether anybody wishes that this life ends: to be off, to begin anew, or for good.
    pub(crate) fn wants_end(&self) -> bool {
        self.shutting_down || !self.stop.is_empty() || !self.next.is_empty()
    }

    /// When the one who has waited longest has waited for this long.
    pub(crate) fn patience_ends(&self, limit: Duration) -> Option<Instant> {
        self.now.iter().map(|(since, _)| *since + limit).min()
    }

    /// It runs: all are served.
    pub(crate) fn serve(&mut self, vm: &Arc<dyn Vm>) {
        self.now.drain(..).for_each(|(_, waiter)| waiter.serve(vm));
    }

    /// Those who have waited for so long are refused.
    pub(crate) fn refuse_older(&mut self, limit: Duration, now: Instant, why: impl Fn() -> Unavailable) {
        for (_, waiter) in self.now.extract_if(.., |(since, _)| *since + limit <= now) {
            waiter.refuse(why());
        }
    }

    /// This life is over: who waited for it is refused, who waited for its end is served, and who waits for the next
    /// life waits for what is now this one.
    pub(crate) fn turn_over(&mut self, why: impl Fn() -> Unavailable) {
        self.now.drain(..).for_each(|(_, waiter)| waiter.refuse(why()));
        self.stop.drain(..).for_each(|reply| drop(reply.send(Ok(()))));
        self.now.append(&mut self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_while_it_ends_waits_for_the_next_life() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let (first, mut first_answer) = oneshot::channel();
        let (second, mut second_answer) = oneshot::channel();
        let (stop, mut stop_answer) = oneshot::channel();
        queue.wait(Waiter::Start(first), now);
        queue.wait_for_end(stop);
        queue.wait_for_next(Waiter::Start(second), now);
        queue.turn_over(|| Unavailable::Stopped);
        assert!(matches!(first_answer.try_recv().unwrap(), Err(Unavailable::Stopped)));
        assert!(stop_answer.try_recv().unwrap().is_ok());
        assert!(second_answer.try_recv().is_err());
        assert!(queue.wants_machine());
    }

    #[test]
    fn who_waits_when_it_begins_anew_is_not_refused() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let (first, mut first_answer) = oneshot::channel();
        let (second, mut second_answer) = oneshot::channel();
        queue.wait(Waiter::Start(first), now);
        queue.restart(Waiter::Start(second), now);
        assert!(queue.wants_end() && !queue.wants_machine());
        queue.turn_over(|| Unavailable::Stopped);
        assert!(first_answer.try_recv().is_err() && second_answer.try_recv().is_err());
        assert!(queue.wants_machine());
    }

    #[test]
    fn only_who_has_waited_too_long_is_refused() {
        let (t0, limit) = (Instant::now(), Duration::from_secs(30));
        let mut queue = Queue::default();
        let (old, mut old_answer) = oneshot::channel();
        let (young, mut young_answer) = oneshot::channel();
        queue.wait(Waiter::Start(old), t0);
        queue.wait(Waiter::Start(young), t0 + Duration::from_secs(1));
        assert_eq!(queue.patience_ends(limit), Some(t0 + limit));
        queue.refuse_older(limit, t0 + limit, || Unavailable::ShuttingDown);
        assert!(old_answer.try_recv().unwrap().is_err());
        assert!(young_answer.try_recv().is_err());
    }
}
