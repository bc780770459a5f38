//! Names the commands that the window may call, so that a capability must allow each, and lets Tauri embed what it needs.

fn main() {
    let commands = &["call", "subscribe", "unsubscribe", "open_url", "name_menus"];
    let attributes =
        tauri_build::Attributes::new().app_manifest(tauri_build::AppManifest::new().commands(commands));
    if let Err(error) = tauri_build::try_build(attributes) {
        println!("cargo::error={error:#}");
        std::process::exit(1);
    }
}
