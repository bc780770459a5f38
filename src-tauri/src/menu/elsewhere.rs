//! Windows and Linux: a menu bar would be the window's, and everything is in the window already.

use tauri::AppHandle;

#[expect(clippy::unnecessary_wraps, reason = "the same face as on macOS, where it can fail")]
pub(crate) fn set(_app: &AppHandle) -> tauri::Result<()> {
    Ok(())
}
