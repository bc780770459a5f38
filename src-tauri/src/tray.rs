//! The tray icon: what the machine does, and the few things that one wants without a window.

#[cfg_attr(target_os = "macos", path = "tray/macos.rs")]
#[cfg_attr(not(target_os = "macos"), path = "tray/elsewhere.rs")]
mod look;

use crate::{bridge, daemon::Daemon, window, words::MenuWords};
use caisson_app_api::{Call, Event, MachineState};
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tauri::{
    AppHandle, Manager, State, async_runtime,
    menu::{Menu, MenuEvent, MenuItem, PredefinedMenuItem},
    tray::TrayIconBuilder,
};
use tracing::{error, warn};

/// How long to wait before looking for the daemon again.
const RETRY: Duration = Duration::from_secs(2);

/// The tray icon, or that there is none.
pub(crate) struct Tray(Option<Items>);

struct Items {
    state: MenuItem<tauri::Wry>,
    open: MenuItem<tauri::Wry>,
    start: MenuItem<tauri::Wry>,
    stop: MenuItem<tauri::Wry>,
    quit: MenuItem<tauri::Wry>,
    shown: Mutex<Shown>,
}

#[derive(Default)]
struct Shown {
    words: MenuWords,
    /// None while the daemon does not answer.
    machine: Option<MachineState>,
}

impl Tray {
    /// Shows the icon and follows the machine. A system without a tray has none; that is no reason not to start.
    pub(crate) fn show(app: &AppHandle) -> Self {
        match build(app) {
            Ok(items) => {
                async_runtime::spawn(follow(app.clone()));
                Self(Some(items))
            }
            Err(error) => {
                warn!(error = &error as &dyn std::error::Error, "there is no tray icon");
                Self(None)
            }
        }
    }

    pub(crate) fn is_shown(&self) -> bool {
        self.0.is_some()
    }

    fn update(&self, change: impl FnOnce(&mut Shown)) {
        let Some(items) = &self.0 else { return };
        let mut shown = items.shown.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut shown);
        if let Err(error) = items.draw(&shown) {
            error!(error = &error as &dyn std::error::Error, "the tray's menu cannot be changed");
        }
    }
}

/// Gives the tray the user's language.
#[tauri::command]
pub(crate) async fn name_menus(tray: State<'_, Tray>, words: MenuWords) -> Result<(), ()> {
    tray.update(|shown| shown.words = words);
    Ok(())
}

fn build(app: &AppHandle) -> tauri::Result<Items> {
    let item = |id: &str, enabled| MenuItem::with_id(app, id, "", enabled, None::<&str>);
    let items = Items {
        state: item("state", false)?,
        open: item("open", true)?,
        start: item("start", false)?,
        stop: item("stop", false)?,
        quit: item("quit", true)?,
        shown: Mutex::default(),
    };
    items.draw(&Shown::default())?;
    let line = || PredefinedMenuItem::separator(app);
    let menu = Menu::with_items(
        app,
        &[&items.state, &line()?, &items.open, &items.start, &items.stop, &line()?, &items.quit],
    )?;
    let icon = TrayIconBuilder::with_id("main").menu(&menu).tooltip("Caisson").on_menu_event(chosen);
    look::dress(icon)?.build(app)?;
    Ok(items)
}

impl Items {
    fn draw(&self, Shown { words, machine }: &Shown) -> tauri::Result<()> {
        self.state.set_text(words.state(machine.as_ref()))?;
        self.open.set_text(&words.open)?;
        self.start.set_text(&words.start)?;
        self.stop.set_text(&words.stop)?;
        self.quit.set_text(&words.quit)?;
        self.start.set_enabled(matches!(
            machine,
            None | Some(MachineState::Stopped | MachineState::Failed { .. })
        ))?;
        self.stop.set_enabled(matches!(
            machine,
            Some(MachineState::Preparing | MachineState::Booting { .. } | MachineState::Running { .. })
        ))
    }
}

fn chosen(app: &AppHandle, event: MenuEvent) {
    match event.id().as_ref() {
        "open" => window::show(app),
        "start" => ask(app, Call::MachineStart),
        "stop" => ask(app, Call::MachineStop),
        "quit" => app.exit(0),
        _ => {}
    }
}

/// Asks the daemon; how it went is shown by the machine's state, here and in the window.
fn ask(app: &AppHandle, call: Call) {
    let app = app.clone();
    async_runtime::spawn(async move {
        if let Err(error) = bridge::call(app.state::<Daemon>(), call).await {
            warn!(error = &error as &dyn std::error::Error, "the machine did not do what the tray asked");
        }
    });
}

/// Shows the machine's state for as long as the program runs, whatever daemons come and go.
async fn follow(app: AppHandle) {
    loop {
        let daemon = app.state::<Daemon>().if_running();
        if let Ok(mut events) = daemon.events().await {
            while let Some(Ok(event)) = events.next().await {
                if let Event::Machine(status) = event {
                    app.state::<Tray>().update(|shown| shown.machine = Some(status.state));
                }
            }
        }
        app.state::<Tray>().update(|shown| shown.machine = None);
        tokio::time::sleep(RETRY).await;
    }
}
