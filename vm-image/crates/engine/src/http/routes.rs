//! The table of routes: a row an endpoint. New endpoint: a row here and a function.
//!
//! As in moby, the first row that fits wins, `{…}` stands for anything (image names have slashes), and a path that exists
//! only for another method is as unknown as any other.

use futures_util::future::BoxFuture;
use hyper::Method;

use super::call::Call;
use super::reply::Reply;
use super::{containers, events, images, networks, system};
use crate::error::ApiError;

type Function = fn(Call) -> BoxFuture<'static, Result<Reply, ApiError>>;

/// One endpoint.
pub(crate) struct Route {
    method: Method,
    path: &'static str,
    pub(crate) function: Function,
    /// Whether what follows the request's head may be a raw stream.
    pub(crate) hijacks: bool,
}

macro_rules! row {
    ($method:ident $path:literal => $($function:ident)::+) => {
        row!($method $path => $($function)::+, hijacks: false)
    };
    ($method:ident $path:literal => $($function:ident)::+, hijacks) => {
        row!($method $path => $($function)::+, hijacks: true)
    };
    ($method:ident $path:literal => $($function:ident)::+, hijacks: $hijacks:literal) => {
        Route {
            method: Method::$method,
            path: $path,
            function: |call| Box::pin($($function)::+(call)),
            hijacks: $hijacks,
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
    // Containers
    row!(GET "/containers/json" => containers::list::list),
    row!(POST "/containers/create" => containers::create::create),
    row!(GET "/containers/{id}/json" => containers::inspect::inspect),
    row!(GET "/containers/{id}/logs" => containers::logs::logs),
    row!(POST "/containers/{id}/start" => containers::lifecycle::start),
    row!(POST "/containers/{id}/stop" => containers::lifecycle::stop),
    row!(POST "/containers/{id}/restart" => containers::lifecycle::restart),
    row!(POST "/containers/{id}/kill" => containers::lifecycle::kill),
    row!(POST "/containers/{id}/wait" => containers::wait::wait),
    row!(POST "/containers/{id}/resize" => containers::lifecycle::resize),
    row!(POST "/containers/{id}/attach" => containers::attach::attach, hijacks),
    row!(DELETE "/containers/{id}" => containers::lifecycle::remove),
    // Images
    row!(GET "/images/json" => images::list),
    row!(POST "/images/load" => images::load),
    row!(POST "/images/create" => images::create),
    row!(GET "/images/{name}/json" => images::inspect),
    row!(POST "/images/{name}/tag" => images::tag),
    row!(DELETE "/images/{name}" => images::remove),
    // Networks
    row!(GET "/networks" => networks::list),
    row!(GET "/networks/" => networks::list),
    row!(GET "/networks/{id}" => networks::inspect),
];

/// The row for a request, and what stands in its `{…}`.
pub(crate) fn find(method: &Method, path: &str) -> Option<(&'static Route, String)> {
    ROUTES
        .iter()
        .filter(|route| route.method == *method)
        .find_map(|route| Some((route, matches(route.path, path)?)))
}

fn matches(pattern: &str, path: &str) -> Option<String> {
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
                format!("{:6} {}{}\n", r.method.as_str(), r.path, if r.hijacks { " (hijacks)" } else { "" })
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
