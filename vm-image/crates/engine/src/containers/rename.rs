//! Renaming: the new name is taken first, and the old one given back last, so that nobody else gets either meanwhile.

use super::task::{Request, Task};
use super::{Handle, names};
use crate::error::ApiError;

impl Handle {
    /// Gives the container another name (with or without the slash in front).
    pub(crate) async fn rename(&self, name: &str) -> Result<(), ApiError> {
        self.ask(|answer| Request::Rename(name.to_owned(), answer)).await
    }
}

impl Task {
    pub(super) async fn rename(&mut self, asked: &str) -> Result<(), ApiError> {
        let within = |e: ApiError| e.within("Error when allocating new name");
        let old = self.definition.name.clone();
        if asked.strip_prefix('/').unwrap_or(asked) == old {
            return Err(ApiError::invalid("Renaming a container with the same name as its current name"));
        }
        let slashed = if asked.starts_with('/') { asked.to_owned() } else { format!("/{asked}") };
        let name = names::check(&slashed).map_err(within)?;
        self.register.reserve(&name, &self.definition.id).map_err(within)?;
        let new = name.clone();
        if let Err(error) = self.redefine(|definition| definition.name = new).await {
            self.register.release_name(&name);
            return Err(error);
        }
        self.register.release_name(&old);
        self.tell_names().await;
        self.ground.tell(&self.definition, "rename", &[("oldName", format!("/{old}"))]);
        Ok(())
    }
}
