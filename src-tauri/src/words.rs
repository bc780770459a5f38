//! The words of what is drawn outside the pages. They come from the pages, whose language the user chooses; these are
//! only for the moment before a page is there.

use caisson_app_api::MachineState;
use serde::Deserialize;

/// The tray's words; the pages' type of the same name must have the same fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MenuWords {
    pub(crate) open: String,
    pub(crate) start: String,
    pub(crate) stop: String,
    pub(crate) quit: String,
    pub(crate) stopped: String,
    pub(crate) starting: String,
    pub(crate) running: String,
    pub(crate) stopping: String,
    pub(crate) failed: String,
    pub(crate) unreachable: String,
}

impl Default for MenuWords {
    fn default() -> Self {
        Self {
            open: "Open Caisson".into(),
            start: "Start machine".into(),
            stop: "Stop machine".into(),
            quit: "Quit window and tray".into(),
            stopped: "Machine is stopped".into(),
            starting: "Machine is starting".into(),
            running: "Machine is running".into(),
            stopping: "Machine is stopping".into(),
            failed: "Machine failed".into(),
            unreachable: "Service does not answer".into(),
        }
    }
}

impl MenuWords {
    /// What the machine does; none if the daemon does not answer.
    pub(crate) fn state(&self, state: Option<&MachineState>) -> &str {
        match state {
            None => &self.unreachable,
            Some(MachineState::Stopped) => &self.stopped,
            Some(MachineState::Preparing | MachineState::Booting { .. }) => &self.starting,
            Some(MachineState::Running { .. }) => &self.running,
            Some(MachineState::Stopping) => &self.stopping,
            Some(MachineState::Failed { .. }) => &self.failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value};

    #[test]
    fn the_pages_words_are_these() {
        let door = include_str!("../../ui/src/host/host.ts");
        let (_, after) = door.split_once("export interface MenuWords {").unwrap();
        let (fields, _) = after.split_once('}').unwrap();
        let words: Map<String, Value> = fields
            .lines()
            .filter_map(|line| line.trim().strip_suffix(": string"))
            .map(|field| (field.to_owned(), Value::from(field)))
            .collect();
        let words: MenuWords = serde_json::from_value(words.into()).unwrap();
        assert_eq!(words.state(None), "unreachable");
        assert_eq!(words.state(Some(&MachineState::Stopping)), "stopping");
    }
}
