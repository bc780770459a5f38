//! Windows and Linux: a picture in colour, on a panel that may be light or dark.

use tauri::{Wry, image::Image, tray::TrayIconBuilder};

pub(crate) fn dress(icon: TrayIconBuilder<Wry>) -> tauri::Result<TrayIconBuilder<Wry>> {
    Ok(icon.icon(Image::from_bytes(include_bytes!("../../icons/tray.png"))?))
}
