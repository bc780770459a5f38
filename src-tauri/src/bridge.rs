//! Carries the pages' calls and subscriptions to the daemon and back. It knows none of them: what can be called is the
//! daemon's list, whose types the pages are generated from.

use crate::daemon::Daemon;
use caisson_app_api::{ApiError, Call, Client, ErrorCode, Subscribe};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tauri::{AppHandle, Manager, State, async_runtime, ipc::Channel};
use tokio::{sync::mpsc, task::AbortHandle};

/// How many items of a subscription may wait for the page.
const WAITING: usize = 1024;
/// How many go to the page at once: each message costs it a turn, so a talkative log is sent in batches.
const BATCH: usize = 512;

/// What a page is told of a subscription.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    Items(Vec<Value>),
    End(Option<ApiError>),
}

/// The subscriptions that pages have, so that they can be ended.
#[derive(Default)]
pub(crate) struct Subscriptions(Mutex<Running>);

#[derive(Default)]
struct Running {
    last: u32,
    tasks: HashMap<u32, AbortHandle>,
}

impl Subscriptions {
    fn lock(&self) -> MutexGuard<'_, Running> {
        // What is guarded is whole after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, id: u32) {
        if let Some(task) = self.lock().tasks.remove(&id) {
            task.abort();
        }
    }

    /// Ends all: the page that had them is gone.
    pub(crate) fn end_all(&self) {
        self.lock().tasks.drain().for_each(|(_, task)| task.abort());
    }
}

/// Asks the daemon.
#[tauri::command]
pub(crate) async fn call(daemon: State<'_, Daemon>, call: Call) -> Result<Value, ApiError> {
    daemon.wanted().await?.call_value(call).await
}

/// Begins a subscription, whose items go down `channel`; answers with the number that ends it.
#[tauri::command]
pub(crate) async fn subscribe(
    app: AppHandle,
    daemon: State<'_, Daemon>,
    subscriptions: State<'_, Subscriptions>,
    subscribe: Subscribe,
    channel: Channel<Message>,
) -> Result<u32, ApiError> {
    let client = daemon.followed().await?;
    let mut running = subscriptions.lock();
    running.last += 1;
    let id = running.last;
    let task = async_runtime::spawn(async move {
        follow(client, subscribe, &channel).await;
        app.state::<Subscriptions>().lock().tasks.remove(&id);
    });
    // The task cannot have removed itself yet: it waits for the lock that is held here.
    running.tasks.insert(id, task.inner().abort_handle());
    Ok(id)
}

/// Ends a subscription. One that has ended is ended already.
#[tauri::command]
pub(crate) fn unsubscribe(subscriptions: State<'_, Subscriptions>, id: u32) {
    subscriptions.end(id);
}

/// Shows a page of this computer's or the web's in the user's browser.
#[tauri::command]
pub(crate) async fn open_url(url: String) -> Result<(), ApiError> {
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return Err(ApiError::new(ErrorCode::Invalid, format!("{url} is no web address")));
    }
    let opened = async_runtime::spawn_blocking(move || open::that_detached(&url)).await;
    let failed = |error: &dyn std::error::Error| {
        ApiError::new(ErrorCode::Internal, "no program opens web pages").with_detail(error.to_string())
    };
    opened.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

/// Reads and sends side by side, so that what arrives while the page is busy goes to it at once.
async fn follow(client: Client, subscribe: Subscribe, channel: &Channel<Message>) {
    let (items, waiting) = mpsc::channel(WAITING);
    let (outcome, ()) = tokio::join!(read(client, subscribe, items), send(waiting, channel));
    // The page may be gone; then nobody needs to know.
    let _ = channel.send(Message::End(outcome.err()));
}

async fn read(client: Client, subscribe: Subscribe, items: mpsc::Sender<Value>) -> Result<(), ApiError> {
    let mut subscription = client.subscribe_values(subscribe).await?;
    while let Some(item) = subscription.next().await {
        if items.send(item?).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Ends when nothing more comes or nobody listens; then the reader does not wait for room any more.
async fn send(mut waiting: mpsc::Receiver<Value>, channel: &Channel<Message>) {
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        if channel.send(Message::Items(std::mem::take(&mut batch))).is_err() {
            return;
        }
    }
}
