//! Preparing a process: what it is to be goes into a file, from which the shim makes it.

use std::path::Path;
use std::sync::Arc;

use caisson_shim::ExecProcess;
use oci_spec::runtime::{LinuxSeccomp, Process};
use serde::{Deserialize, Serialize};

use super::super::record::Definition;
use super::super::{Containers, Ground, Handle, spec};
use super::{Exec, Status, Wish, expect_active};
use crate::error::ApiError;

/// The file of an added process: what the shim reads, and what the next engine must know.
#[derive(Serialize)]
struct ExecFile<'a> {
    #[serde(flatten)]
    process: ExecProcess<Process, LinuxSeccomp>,
    wish: &'a Wish,
}

/// The engine's part of it.
#[derive(Deserialize)]
pub(super) struct Remembered {
    pub(super) wish: Wish,
}

impl Containers {
    /// Prepares a process in a container that runs. What the wish leaves open is as in the container. `name` is what the client called it.
    pub(crate) async fn create_exec(
        &self,
        container: Handle,
        name: &str,
        mut wish: Wish,
    ) -> Result<Arc<Exec>, ApiError> {
        let pid = expect_active(&container, name)?;
        let definition = container.definition();
        if !wish.user.is_empty() {
            find_user(pid, wish.user.clone()).await?;
        }
        let or = |text: &mut String, other: &str| {
            if text.is_empty() {
                text.push_str(other);
            }
        };
        or(&mut wish.user, &definition.config.user);
        or(&mut wish.working_dir, &definition.config.working_dir);
        let id = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let exec = Exec::new(id, container, wish, Status::Created);
        let linked = self.register.follow_links(&definition)?;
        exec.write(&self.ground, &definition, &linked.environment)?;
        self.ground.execs.add(&exec, &self.ground);
        exec.tell(&self.ground, &exec.action("exec_create"), &[]);
        Ok(exec)
    }
}

/// Looks a user up in the container before anything is started, as dockerd does.
async fn find_user(pid: u32, user: String) -> Result<(), ApiError> {
    let look = move || caisson_runtime::exec::check_user(Path::new(&format!("/proc/{pid}/root")), &user);
    tokio::task::spawn_blocking(look).await?.map_err(|failure| ApiError::invalid(failure.message))
}

impl Exec {
    /// Writes the file from which the shim makes the process. A small file on a memory file system.
    pub(super) fn write(
        &self,
        ground: &Ground,
        definition: &Definition,
        linked: &[String],
    ) -> Result<(), ApiError> {
        let process = ExecProcess {
            process: spec::added_process(definition, linked, &self.wish)?,
            user: Some(self.wish.user.clone()),
            group_add: definition.host_config.group_add.clone().unwrap_or_default(),
            filter: spec::added_filter(definition, &self.wish)?,
        };
        let file = ExecFile { process, wish: &self.wish };
        ground
            .shim_of(&self.container.id)
            .write_exec(&self.id, &file)
            .map_err(|e| ApiError::from_chain("could not prepare the process", &e))
    }
}
