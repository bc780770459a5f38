//! A table that somebody else changes or takes away, as tools do which load a system's own rules: it is there again at once.
//! Without its rules networks are not apart, and loopback addresses, where they are routed, are open to containers.
//!
//! Who does so over and over, because it keeps rules of its own in our place for instance, is not fought without rest.

use std::io;
use std::sync::Weak;
use std::time::{Duration, Instant};

use caisson_nftables::{Change, Changes};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{debug, warn};

use super::FirewallError;
use crate::error::chain;
use crate::networks::{Shared, blocking};

/// Those who change rules often are not followed step by step.
const REST: Duration = Duration::from_millis(50);
/// How long the rules may be away when somebody goes on taking them away.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// Who has left them alone for so long may have a reason the next time.
const PEACE: Duration = Duration::from_secs(60);

/// Watches for as long as there are networks.
pub(crate) async fn keep(shared: Weak<Shared>) {
    if let Err(error) = follow(&shared).await {
        warn!(%error, "rules that somebody else changes are there again with the next change only");
    }
}

async fn follow(shared: &Weak<Shared>) -> io::Result<()> {
    let Some(changes) = shared.upgrade().map(|shared| shared.firewall.changes_of_others()) else {
        return Ok(());
    };
    let changes = watched(changes?)?;
    let (mut fights, mut floods) = (Patience::default(), Patience::default());
    let mut heard = None;
    loop {
        let change = match heard {
            Some(change) => change,
            None => next(&changes).await?,
        };
        let Some(shared) = shared.upgrade() else { return Ok(()) };
        let restored = blocking(move || shared.restore_rules()).await;
        let mut rest = REST;
        if !matches!(restored, Ok(false)) {
            let patience = match &change {
                Change::Made { .. } => &mut fights,
                Change::Unheard => &mut floods,
            };
            let turn = patience.after_writing(Instant::now());
            tell(&change, restored.as_ref().err(), turn.word);
            rest = turn.rest;
        }
        heard = pause(changes.get_ref(), rest).await;
        if restored.is_err() {
            // Nobody may change anything any more, and the rules are not there.
            heard.get_or_insert(change);
        }
    }
}

/// Waits until others may have changed our rules. Those who change theirs often are not followed step by step.
async fn next(changes: &AsyncFd<Changes>) -> io::Result<Change> {
    loop {
        let mut ready = changes.readable().await?;
        let change = changes.get_ref().take();
        ready.clear_ready();
        match change {
            Some(change) => return Ok(change),
            None => tokio::time::sleep(REST).await,
        }
    }
}

/// Rests. What others change meanwhile is taken all the same, so that there is room for more of it.
async fn pause(changes: &Changes, rest: Duration) -> Option<Change> {
    let over = Instant::now() + rest;
    let mut heard = None;
    loop {
        let left = over.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return heard;
        }
        tokio::time::sleep(left.min(REST)).await;
        heard = match (heard, changes.take()) {
            (Some(before), None | Some(Change::Unheard)) => Some(before),
            (_, now) => now,
        };
    }
}

fn tell(change: &Change, failure: Option<&FirewallError>, word: Word) {
    let (by, done) = match change {
        Change::Made { by } => {
            let by = by.as_deref().unwrap_or("unknown");
            (Some(by), "somebody else has changed the rules between networks; they are written again")
        }
        Change::Unheard => {
            (None, "not all changes of rules could be heard; those between networks are written again")
        }
    };
    let what = match failure {
        None => done,
        Some(_) => {
            "the rules between networks, which somebody else may have changed, cannot be written again"
        }
    };
    let error = failure.map(|error| chain(error));
    let error = error.as_deref();
    match word {
        Word::Again => warn!(by, error, "{what}"),
        Word::GoesOn => warn!(by, error, "{what}, and this goes on"),
        Word::Nothing => debug!(by, error, "{what}"),
    }
}

/// How long those who change our rules are left alone after these were written again: longer each time.
#[derive(Debug, Default)]
struct Patience {
    last: Option<(Instant, Duration)>,
    /// When it was last said that this goes on.
    told: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    rest: Duration,
    word: Word,
}

/// What is said of a turn. What goes on and on is told of now and then only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Again,
    GoesOn,
    Nothing,
}

impl Patience {
    fn after_writing(&mut self, now: Instant) -> Turn {
        let again = self.last.filter(|(at, _)| now.duration_since(*at) < PEACE);
        let rest = again.map_or(REST, |(_, rest)| rest.saturating_mul(2).min(LONGEST_REST));
        self.last = Some((now, rest));
        Turn { rest, word: self.word(rest, now) }
    }

    fn word(&mut self, rest: Duration, now: Instant) -> Word {
        if rest < LONGEST_REST {
            self.told = None;
            return Word::Again;
        }
        if self.told.is_some_and(|at| now.duration_since(at) < PEACE) {
            return Word::Nothing;
        }
        self.told = Some(now);
        Word::GoesOn
    }
}

#[expect(unsafe_code, reason = "AsyncFd cannot know that its object keeps its descriptor")]
fn watched(changes: Changes) -> io::Result<AsyncFd<Changes>> {
    // SAFETY: a Changes has one socket, which is open until it is dropped, and only the AsyncFd can drop it.
    Ok(unsafe { AsyncFd::register_with_interest(changes, Interest::READABLE) }?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use caisson_nftables::{Family, Kernel, Table};
    use caisson_sys::netns;

    use super::*;

    #[test]
    fn what_others_change_during_a_rest_is_heard() {
        netns::isolated(|| {
            let (own, other) = (Kernel::open().unwrap(), Kernel::open().unwrap());
            let changes = Changes::of_others(&own, Family::Inet, "t").unwrap();
            // Enough for what is changed in a part of the rest, and too little for all of it.
            rustix::net::sockopt::set_socket_recv_buffer_size(&changes, 64 * 1024).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let over = AtomicBool::new(false);
            std::thread::scope(|threads| {
                let change = || {
                    while !over.load(Ordering::Relaxed) {
                        other.replace(&Table::new(Family::Inet, "u")).unwrap();
                        std::thread::sleep(Duration::from_millis(8));
                    }
                };
                threads.spawn(change);
                let heard = runtime.block_on(pause(&changes, LONGEST_REST));
                over.store(true, Ordering::Relaxed);
                assert_eq!(heard, None);
            });
        });
    }

    #[test]
    fn a_fight_has_longer_rests_up_to_a_limit_and_peace_ends_it() {
        let mut patience = Patience::default();
        let mut now = Instant::now();
        let mut turns = |count: usize| -> Vec<(u128, Word)> {
            let turns = (0..count).map(|_| {
                let Turn { rest, word } = patience.after_writing(now);
                now += rest;
                (rest.as_millis(), word)
            });
            turns.collect()
        };
        let first = [50, 100, 200, 400, 800].map(|rest| (rest, Word::Again));
        assert_eq!(turns(5), first);
        for _ in 0..3 {
            assert_eq!(turns(1), [(1000, Word::GoesOn)]);
            assert_eq!(turns(59), [(1000, Word::Nothing); 59]);
        }
        now += PEACE;
        assert_eq!(patience.after_writing(now), Turn { rest: REST, word: Word::Again });
    }
}
