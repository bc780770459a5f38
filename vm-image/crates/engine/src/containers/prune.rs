//! Removing all that does not run: `docker container prune`.

use caisson_docker_api::container::PruneReport;
use tracing::warn;

use super::Containers;
use super::remove::RemoveOptions;
use super::state::State;
use crate::error::ApiError;
use crate::filters::Filters;

impl Containers {
    /// Removes the containers that do not run and fit the filters (`until`, `label`, `label!`).
    pub(crate) async fn prune(&self, filters: Filters) -> Result<PruneReport, ApiError> {
        let filters = filters.only(&["label", "label!", "until"])?;
        let until = filters.until()?;
        let mut report = PruneReport::default();
        for handle in self.all() {
            let definition = handle.definition();
            let labels = definition.config.labels.clone().unwrap_or_default();
            let spared = handle.is_active()
                || matches!(handle.state(), State::Removing(_) | State::Removed)
                || until.is_some_and(|until| definition.created > until)
                || !filters.prunes(&labels);
            if spared {
                continue;
            }
            let (containers, sized) = (self.clone(), handle.clone());
            let (own, _) = tokio::task::spawn_blocking(move || containers.sizes(&sized)).await?;
            match handle.remove(&handle.id, RemoveOptions::default()).await {
                Ok(()) => {
                    report.space_reclaimed += u64::try_from(own).unwrap_or(0);
                    report.containers_deleted.get_or_insert_default().push(handle.id.to_string());
                }
                Err(error) => warn!(id = handle.short_id(), %error, "could not prune a container"),
            }
        }
        let told = [("reclaimed".to_owned(), report.space_reclaimed.to_string())];
        self.ground.events.publish("container", "prune", "", told.into());
        Ok(report)
    }
}
