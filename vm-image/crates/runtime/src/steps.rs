//! How long each step of making a container took: for whoever asks where the time goes.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// One step that is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// How long it took, in microseconds.
    pub micros: u64,
}

/// Notes steps, one after the other.
#[derive(Debug)]
pub(crate) struct Steps {
    /// When the last step ended; `None` if nobody asks.
    since: Option<Instant>,
    done: Vec<Step>,
}

impl Steps {
    /// The first step begins now. Unless `wanted`, nothing is noted.
    pub(crate) fn begin(wanted: bool) -> Self {
        Self { since: wanted.then(Instant::now), done: Vec::new() }
    }

    /// A step is done, and the next begins.
    pub(crate) fn done(&mut self, name: &str) {
        let Some(since) = self.since else { return };
        let now = Instant::now();
        let micros = u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX);
        self.done.push(Step { name: name.to_owned(), micros });
        self.since = Some(now);
    }

    pub(crate) fn all(self) -> Vec<Step> {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_noted_only_for_those_who_ask() {
        for wanted in [true, false] {
            let mut steps = Steps::begin(wanted);
            steps.done("one");
            steps.done("two");
            let names: Vec<String> = steps.all().into_iter().map(|step| step.name).collect();
            assert_eq!(names, if wanted { vec!["one", "two"] } else { Vec::new() });
        }
    }
}
