//! The loop that takes connections and serves each in a task of its own.

use crate::{Connection, Listener};
use std::{future::Future, io, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tracing::warn;

/// What a failed listener waits before it tries again: it is out of file descriptors, mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// Something that clients connect to.
pub trait Accept: Send {
    /// A connection.
    type Client: Send;

    /// The next client.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Client>> + Send;
}

impl Accept for Listener {
    type Client = Connection;

    async fn accept(&mut self) -> io::Result<Connection> {
        self.accept().await
    }
}

impl Accept for TcpListener {
    type Client = TcpStream;

    async fn accept(&mut self) -> io::Result<TcpStream> {
        Ok(TcpListener::accept(self).await?.0)
    }
}

/// Serves each client in a task, at most `most` at once, until dropped; the tasks end with it. More clients wait in the
/// system's own queue. `whom` names them in the log.
pub async fn serve_each<L, F>(
    listener: L,
    most: usize,
    whom: &'static str,
    serve: impl Fn(L::Client) -> F + Send,
) where
    L: Accept,
    F: Future<Output = ()> + Send + 'static,
{
    serve_each_in(&mut JoinSet::new(), listener, most, whom, serve).await;
}

/// The same, with the tasks where they may live longer than the listener.
pub async fn serve_each_in<L, F>(
    served: &mut JoinSet<()>,
    mut listener: L,
    most: usize,
    whom: &'static str,
    serve: impl Fn(L::Client) -> F + Send,
) where
    L: Accept,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        while served.try_join_next().is_some() {}
        if served.len() >= most {
            served.join_next().await;
        }
        match listener.accept().await {
            Ok(client) => drop(served.spawn(serve(client))),
            Err(error) => {
                warn!(whom, %error, "cannot take a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::VecDeque,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };
    use tokio::sync::Notify;

    /// Gives what it was given, then nobody.
    struct Script(VecDeque<io::Result<u32>>);

    impl Accept for Script {
        type Client = u32;

        async fn accept(&mut self) -> io::Result<u32> {
            match self.0.pop_front() {
                Some(next) => next,
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_limit_are_served_at_once_and_a_failure_ends_nothing() {
        let script = Script([Ok(1), Err(io::ErrorKind::OutOfMemory.into()), Ok(2), Ok(3)].into());
        let (begun, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let (counter, gate) = (begun.clone(), go.clone());
        let serving = tokio::spawn(serve_each(script, 2, "test", move |_| {
            let (counter, gate) = (counter.clone(), gate.clone());
            async move {
                counter.fetch_add(1, Ordering::Relaxed);
                gate.notified().await;
            }
        }));
        tokio::time::sleep(PAUSE * 2).await;
        assert_eq!(begun.load(Ordering::Relaxed), 2);
        go.notify_one();
        tokio::time::sleep(PAUSE).await;
        assert_eq!(begun.load(Ordering::Relaxed), 3);
        serving.abort();
    }
}
