//! The table of routes: a row an endpoint. New endpoint: a row here and a function.
//!
//! As in moby, the first row that fits wins, `{…}` stands for anything (image names have slashes), and a path that exists
//! only for another method is as unknown as any other.

use futures_util::future::BoxFuture;
use hyper::Method;

use super::call::Call;
use super::reply::Reply;
use super::{auth, build, containers, df, distribution, events, exec, images, networks, system, volumes};
use crate::error::ApiError;

type Function = fn(Call) -> BoxFuture<'static, Result<Reply, ApiError>>;

/// One endpoint.
pub(crate) struct Route {
    method: Method,
    path: &'static str,
    pub(crate) function: Function,
    /// Whether the connection may become a raw stream.
    pub(crate) hijacks: Hijacks,
}

/// Where in a connection a raw stream may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hijacks {
    Never,
    /// After the request's head.
    AfterHead,
    /// After its body.
    AfterBody,
    /// After the head of a request for a websocket.
    Websocket,
}

macro_rules! row {
    ($method:ident $path:literal => $($function:ident)::+) => {
        row!($method $path => $($function)::+, Never)
    };
    ($method:ident $path:literal => $($function:ident)::+, $hijacks:ident) => {
        Route {
            method: Method::$method,
            path: $path,
            function: |call| Box::pin($($function)::+(call)),
            hijacks: Hijacks::$hijacks,
        }
    };
}

static ROUTES: &[Route] = &[
    // System
    row!(GET "/_ping" => system::ping),
    row!(HEAD "/_ping" => system::ping_head),
    row!(GET "/version" => system::version),
    row!(GET "/info" => system::info),
    row!(GET "/events" => events::follow),
    row!(GET "/system/df" => df::df),
    row!(GET "/plugins" => system::plugins),
    row!(POST "/build/prune" => build::prune),
    // Containers
    row!(GET "/containers/json" => containers::list::list),
    row!(POST "/containers/create" => containers::create::create),
    row!(GET "/containers/{id}/json" => containers::inspect::inspect),
    row!(GET "/containers/{id}/logs" => containers::logs::logs),
    row!(GET "/containers/{id}/stats" => containers::stats::stats),
    row!(POST "/containers/{id}/start" => containers::lifecycle::start),
    row!(POST "/containers/{id}/stop" => containers::lifecycle::stop),
    row!(POST "/containers/{id}/restart" => containers::lifecycle::restart),
    row!(POST "/containers/prune" => containers::lifecycle::prune),
    row!(POST "/containers/{id}/pause" => containers::lifecycle::pause),
    row!(POST "/containers/{id}/unpause" => containers::lifecycle::unpause),
    row!(POST "/containers/{id}/rename" => containers::lifecycle::rename),
    row!(POST "/containers/{id}/update" => containers::update::update),
    row!(POST "/containers/{id}/kill" => containers::lifecycle::kill),
    row!(POST "/containers/{id}/wait" => containers::wait::wait),
    row!(POST "/containers/{id}/resize" => containers::lifecycle::resize),
    row!(POST "/containers/{id}/attach" => containers::attach::attach, AfterHead),
    row!(HEAD "/containers/{id}/archive" => containers::archive::stat),
    row!(GET "/containers/{id}/archive" => containers::archive::pack),
    row!(PUT "/containers/{id}/archive" => containers::archive::unpack),
    row!(GET "/containers/{id}/changes" => containers::archive::changes),
    row!(GET "/containers/{id}/export" => containers::archive::export),
    row!(POST "/commit" => containers::commit::commit),
    row!(DELETE "/containers/{id}" => containers::lifecycle::remove),
    row!(GET "/containers/{id}/top" => containers::top::top),
    row!(GET "/containers/{id}/attach/ws" => containers::websocket::attach, Websocket),
    row!(POST "/containers/{id}/exec" => exec::create),
    // Exec
    row!(POST "/exec/{id}/start" => exec::start, AfterBody),
    row!(POST "/exec/{id}/resize" => exec::resize),
    row!(GET "/exec/{id}/json" => exec::inspect),
    // Images
    row!(POST "/auth" => auth::login),
    row!(GET "/images/json" => images::list),
    row!(GET "/images/get" => images::save_all),
    row!(GET "/images/search" => images::search),
    row!(GET "/images/{name}/get" => images::save_one),
    row!(GET "/images/{name}/history" => images::history),
    row!(GET "/distribution/{name}/json" => distribution::inspect),
    row!(POST "/images/load" => images::load),
    row!(POST "/images/create" => images::create),
    row!(POST "/images/prune" => images::prune),
    row!(GET "/images/{name}/json" => images::inspect),
    row!(POST "/images/{name}/push" => images::push),
    row!(POST "/images/{name}/tag" => images::tag),
    row!(DELETE "/images/{name}" => images::remove),
    // Networks
    row!(GET "/networks" => networks::list),
    row!(GET "/networks/" => networks::list),
    row!(GET "/networks/{id}" => networks::inspect),
    row!(POST "/networks/create" => networks::create),
    row!(POST "/networks/{id}/connect" => networks::connect),
    row!(POST "/networks/{id}/disconnect" => networks::disconnect),
    row!(POST "/networks/prune" => networks::prune),
    row!(DELETE "/networks/{id}" => networks::remove),
    // Volumes
    row!(GET "/volumes" => volumes::list),
    row!(GET "/volumes/{name}" => volumes::inspect),
    row!(POST "/volumes/create" => volumes::create),
    row!(POST "/volumes/prune" => volumes::prune),
    row!(PUT "/volumes/{name}" => volumes::update),
    row!(DELETE "/volumes/{name}" => volumes::remove),
];

/// The row for a request, and what stands in its `{…}`.
pub(crate) fn find(method: &Method, path: &str) -> Option<(&'static Route, String)> {
    ROUTES
        .iter()
        .filter(|route| route.method == *method)
        .find_map(|route| Some((route, matches(route.path, path)?)))
}

/// What stands in a pattern's `{…}`, if the path fits it.
pub(super) fn matches(pattern: &str, path: &str) -> Option<String> {
    let Some((before, rest)) = pattern.split_once('{') else {
        return (pattern == path).then(String::new);
    };
    let after = rest.split_once('}').map_or("", |(_, after)| after);
    Some(path.strip_prefix(before)?.strip_suffix(after)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_committed_one() {
        let table: String = ROUTES
            .iter()
            .map(|r| {
                let hijacks = match r.hijacks {
                    Hijacks::Never => "",
                    Hijacks::AfterHead => " (hijacks)",
                    Hijacks::AfterBody => " (hijacks after the body)",
                    Hijacks::Websocket => " (websocket)",
                };
                format!("{:6} {}{hijacks}\n", r.method.as_str(), r.path)
            })
            .collect();
        assert_eq!(
            table,
            include_str!("routes.snapshot"),
            "write the new table to routes.snapshot if it is meant"
        );
    }

    #[test]
    fn names_may_have_slashes_and_the_first_row_wins() {
        let found = |method, path| find(&method, path).map(|(route, name)| (route.path, name));
        assert_eq!(
            found(Method::GET, "/images/localhost:5000/a/b:c/json"),
            Some(("/images/{name}/json", "localhost:5000/a/b:c".into()))
        );
        assert_eq!(found(Method::GET, "/containers/json"), Some(("/containers/json", String::new())));
        assert_eq!(found(Method::DELETE, "/containers/web"), Some(("/containers/{id}", "web".into())));
        assert_eq!(found(Method::GET, "/containers/web"), None);
        assert_eq!(found(Method::POST, "/nothing"), None);
    }
}
