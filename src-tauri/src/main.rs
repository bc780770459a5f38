//! caisson-desktop: the window and the tray icon, two faces of the host daemon.
//!
//! A thin adapter: it carries the pages' calls to the daemon ([`bridge`]) and shows its state in the tray ([`tray`]).
//! Nothing is decided here and nothing is owned: closing the window frees it and leaves the tray, quitting ends both,
//! and the daemon and its machine go on either way.

#![cfg_attr(not(debug_assertions), windows_subsystem = "windows")]

mod bridge;
mod daemon;
mod menu;
mod tray;
mod window;
mod words;

use anyhow::Context;
use bridge::Subscriptions;
use daemon::Daemon;
use tauri::{Manager, RunEvent};
use tray::Tray;

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let daemon = Daemon::of_user().context("cannot tell where this user's files are")?;
    tauri::Builder::default()
        // First, so that a second instance ends before it has done anything.
        .plugin(tauri_plugin_single_instance::init(|app, _arguments, _directory| window::show(app)))
        .manage(daemon)
        .manage(Subscriptions::default())
        .invoke_handler(tauri::generate_handler![
            bridge::call,
            bridge::subscribe,
            bridge::unsubscribe,
            bridge::open_url,
            tray::name_menus
        ])
        .setup(|app| {
            menu::set(app.handle())?;
            app.manage(Tray::show(app.handle()));
            window::show(app.handle());
            Ok(())
        })
        .build(tauri::generate_context!())
        .context("cannot start the window system")?
        .run(|app, event| match event {
            RunEvent::ExitRequested { code: None, api, .. } if app.state::<Tray>().is_shown() => {
                // The last window was closed: the tray stays.
                api.prevent_exit();
            }
            #[cfg(target_os = "macos")]
            RunEvent::Reopen { .. } => window::show(app),
            _ => {}
        });
    Ok(())
}
