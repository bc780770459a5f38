//! macOS: a picture in black that the system tints, in the menu bar.

use tauri::{Wry, image::Image, tray::TrayIconBuilder};

pub(crate) fn dress(icon: TrayIconBuilder<Wry>) -> tauri::Result<TrayIconBuilder<Wry>> {
    let picture = Image::from_bytes(include_bytes!("../../icons/tray-template.png"))?;
    Ok(icon.icon(picture).icon_as_template(true))
}
