//! `POST /containers/{id}/wait`: the headers go out at once, the code when it is known.

use caisson_docker_api::container::{WaitError, Waited};

use crate::containers::wait::Condition;
use crate::error::ApiError;
use crate::http::call::Call;
use crate::http::reply::{self, Reply, json_line};

pub(crate) async fn wait(call: Call) -> Result<Reply, ApiError> {
    // Before API 1.30 there were no conditions.
    let condition = if call.version.at_least(30) { call.form.get("condition") } else { "" };
    let condition = Condition::parse(condition)?;
    let wait = call.engine.containers.find(&call.name)?.wait(condition);
    Ok(reply::stream("application/json", |to| async move {
        let outcome = wait.outcome().await;
        let error = outcome.error.map(|message| WaitError { message });
        // A client who has gone does not need it.
        let _ = to.send(json_line(&Waited { status_code: outcome.exit_code.into(), error })).await;
    }))
}
