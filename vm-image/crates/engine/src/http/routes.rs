//! The table of routes: a row an endpoint. New endpoint: a row here and a function.
//!
//! As in moby, the first row that fits wins, `{…}` stands for anything (image names have slashes), and a path that exists
//! only for another method is as unknown as any other.

use futures_util::future::BoxFuture;
use hyper::Method;

use super::call::Call;
use super::error::ApiError;
use super::reply::Reply;
use super::system;

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
    row!(HEAD "/_ping" => system::ping),
    row!(GET "/version" => system::version),
    row!(GET "/info" => system::info),
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
}
