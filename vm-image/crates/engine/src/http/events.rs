//! `GET /events`: the past that is asked for, and the present until the client goes or the time is over.

use caisson_docker_api::events::Message;
use caisson_docker_api::time::Timestamp;
use tokio::sync::broadcast::error::RecvError;

use super::call::Call;
use super::containers::logs::time;
use super::reply::{self, Reply, json_line};
use crate::error::ApiError;
use crate::filters::Filters;

pub(crate) async fn follow(call: Call) -> Result<Reply, ApiError> {
    let since = time(call.form.get("since"))?;
    let until = time(call.form.get("until"))?;
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(ApiError::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            call.form.get("since"),
            call.form.get("until")
        )));
    }
    let filters = Filters::parse(call.form.get("filters"))?;
    let (past, mut live) = call.engine.events.subscribe();
    Ok(reply::stream("application/json", |to| async move {
        let wanted = |message: &Message| {
            let at = Timestamp::from_unix_nanos(message.time_nano);
            since.is_none_or(|since| at >= since)
                && until.is_none_or(|until| at <= until)
                && fits(message, &filters)
        };
        if since.is_some() || until.is_some() {
            for message in past.iter().filter(|message| wanted(message)) {
                if to.send(json_line(message)).await.is_err() {
                    return;
                }
            }
        }
        loop {
            let message = tokio::select! {
                message = live.recv() => message,
                () = over(until) => return,
            };
            match message {
                Ok(message) if wanted(&message) => {
                    if to.send(json_line(&message)).await.is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                // A client that lost events must not think that it has them all.
                Err(RecvError::Lagged(_) | RecvError::Closed) => return,
            }
        }
    }))
}

async fn over(until: Option<Timestamp>) {
    match until {
        Some(until) => tokio::time::sleep(Timestamp::now().until(until)).await,
        None => std::future::pending().await,
    }
}

/// Whether an event is one that the filters ask for: moby's `events.Filter`. The filters named after kinds of things ask for the beginning
/// of the actor's id or name, whatever kind it is of.
fn fits(message: &Message, filters: &Filters) -> bool {
    let actor = &message.actor;
    let attribute = |key: &str| actor.attributes.get(key).map(String::as_str).unwrap_or_default();
    let called = |wish: &str| actor.id.starts_with(wish) || attribute("name").starts_with(wish);
    let image_name = attribute(if message.kind == "image" { "name" } else { "image" });
    let image =
        |wish: &str| [actor.id.as_str(), image_name].iter().any(|name| *name == wish || bare(name) == wish);
    // `exec_create: sh` is an `exec_create`, if one of these is asked for at all.
    let loose = filters.get("event").iter().any(|wish| LOOSE.contains(&wish.as_str()));
    let action = |wish: &str| message.action == wish || (loose && message.action.starts_with(wish));
    filters.any("event", action)
        && filters.any("type", |kind| message.kind == kind)
        && filters.any("scope", |scope| message.scope == scope)
        && NAMED.iter().all(|kind| filters.any(kind, called))
        && filters.any("image", image)
        && filters.labels("label", &actor.attributes)
}

/// Actions that are followed by a colon and more.
const LOOSE: [&str; 3] = ["health_status", "exec_create", "exec_start"];
const NAMED: [&str; 9] =
    ["container", "network", "volume", "daemon", "plugin", "node", "service", "secret", "config"];

/// An image's name without its tag.
fn bare(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use caisson_docker_api::events::Actor;

    use super::*;

    fn message() -> Message {
        let attributes = [("image", "busybox:1"), ("name", "web"), ("tier", "front")];
        let attributes: BTreeMap<_, _> =
            attributes.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Message {
            status: String::new(),
            id: String::new(),
            from: String::new(),
            kind: "container".into(),
            action: "die".into(),
            actor: Actor { id: "c0ffee".into(), attributes },
            scope: "local".into(),
            time: 0,
            time_nano: 0,
        }
    }

    #[test]
    fn filters_choose_events() {
        let fits = |json: &str| fits(&message(), &Filters::parse(json).unwrap());
        for yes in [
            "{}",
            r#"{"event":["start","die"]}"#,
            r#"{"type":["container"],"label":["tier=front"]}"#,
            r#"{"container":["web"]}"#,
            r#"{"container":["c0f"]}"#,
            r#"{"container":["we"]}"#,
            r#"{"image":["busybox"]}"#,
            r#"{"image":["busybox:1"]}"#,
        ] {
            assert!(fits(yes), "{yes}");
        }
        for no in [
            r#"{"event":["start"]}"#,
            r#"{"type":["image"]}"#,
            r#"{"container":["db"]}"#,
            r#"{"label":["x"]}"#,
        ] {
            assert!(!fits(no), "{no}");
        }
    }
}
