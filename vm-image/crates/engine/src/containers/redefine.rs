//! Changing what a container is to be: its name, its limits and restart policy, the networks that it joins.
//!
//! Only the task does it, one change at a time: the new definition is written through to the disk, then published. Whoever holds
//! a snapshot keeps it. A change that fails, or that the engine's end cuts short, leaves the old definition whole.

use std::sync::Arc;

use super::record::Definition;
use super::task::Task;
use crate::error::ApiError;

impl Task {
    /// Changes the definition; returns once the new one is on disk and published.
    pub(super) async fn redefine(&mut self, change: impl FnOnce(&mut Definition)) -> Result<(), ApiError> {
        let mut definition = Definition::clone(&self.definition);
        change(&mut definition);
        let definition = Arc::new(definition);
        let (directory, to_write) = (self.directory.clone(), definition.clone());
        let written = tokio::task::spawn_blocking(move || directory.write_definition(&to_write)).await?;
        written.map_err(|e| ApiError::from_chain("could not write down the container's definition", &e))?;
        self.definition = definition.clone();
        self.redefined.send_replace(definition);
        Ok(())
    }
}
