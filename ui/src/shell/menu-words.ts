import type { MenuWords } from '../host'
import { m } from '../i18n'

/** The tray's and the menu's words in the user's language. */
export function menuWords(): MenuWords {
  return {
    open: m.tray_open(),
    start: m.tray_start(),
    stop: m.tray_stop(),
    quit: m.tray_quit(),
    stopped: m.tray_stopped(),
    starting: m.tray_starting(),
    running: m.tray_running(),
    stopping: m.tray_stopping(),
    failed: m.tray_failed(),
    unreachable: m.tray_unreachable(),
  }
}
