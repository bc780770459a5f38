//! The list of containers, fresh after each of the engine's events: followed, not polled.

use super::{Engine, answers, containers};
use caisson_app_api::{ApiError, ContainerSummary};
use caisson_machine::MachineStatus;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::{Method, body::Incoming};
use std::time::Duration;
use tokio::{
    sync::watch::{Receiver, Sender},
    time::sleep,
};
use tracing::warn;

/// `{"type":["container"]}`
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D";

/// Events come in bursts: a `docker run --rm` makes six.
const BURST: Duration = Duration::from_millis(100);

/// What passes before an engine that broke off is asked again: twice as long each time, until it has listed containers.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Publishes the containers for as long as the machine is watched; nothing while the engine does not answer.
pub(crate) async fn watch_containers(
    engine: Engine,
    mut machine: Receiver<MachineStatus>,
    publish: Sender<Option<Vec<ContainerSummary>>>,
) {
    let mut pause = FIRST_PAUSE;
    while machine.wait_for(answers).await.is_ok() {
        let mut until = machine.clone();
        tokio::select! {
            ended = follow(&engine, &publish) => if let Err(error) = ended {
                warn!(%error, detail = ?error.detail, "lost the engine's events");
            },
            // Either way it answers no longer.
            _ = until.wait_for(|status| !answers(status)) => {}
        }
        let listed = publish.send_replace(None).is_some();
        pause = if listed { FIRST_PAUSE } else { LONGEST_PAUSE.min(pause * 2) };
        sleep(pause).await;
    }
}

/// Listens first and lists then, so that nothing falls in between.
async fn follow(engine: &Engine, publish: &Sender<Option<Vec<ContainerSummary>>>) -> Result<(), ApiError> {
    let mut events = engine.request(Method::GET, EVENTS).await?.into_body();
    loop {
        publish.send_replace(Some(containers::list(engine).await?));
        if !burst(&mut events).await {
            return Ok(());
        }
    }
}

/// Waits for the next event and those that come with it; false at the end of all events.
async fn burst(events: &mut Incoming) -> bool {
    if !matches!(events.frame().await, Some(Ok(_))) {
        return false;
    }
    sleep(BURST).await;
    while let Some(more) = events.frame().now_or_never() {
        if !matches!(more, Some(Ok(_))) {
            return false;
        }
    }
    true
}
