//! The one window. It is made when it is wanted and destroyed when it is closed, so that a closed one costs nothing.

use crate::bridge::Subscriptions;
use tauri::{AppHandle, Manager, WebviewUrl, WebviewWindowBuilder, WindowEvent};
use tracing::error;

const NAME: &str = "main";

/// Brings the window to the front, making it if it is not there.
pub(crate) fn show(app: &AppHandle) {
    let shown = match app.get_webview_window(NAME) {
        Some(window) => window.unminimize().and_then(|()| window.set_focus()),
        None => open(app),
    };
    if let Err(error) = shown {
        error!(error = &error as &dyn std::error::Error, "the window cannot be shown");
    }
}

fn open(app: &AppHandle) -> tauri::Result<()> {
    let window = WebviewWindowBuilder::new(app, NAME, WebviewUrl::default())
        .title("Caisson")
        .inner_size(1100.0, 720.0)
        .min_inner_size(720.0, 480.0)
        .build()?;
    let app = app.clone();
    window.on_window_event(move |event| {
        if matches!(event, WindowEvent::Destroyed) {
            app.state::<Subscriptions>().end_all();
        }
    });
    Ok(())
}
