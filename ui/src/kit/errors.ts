import type { ErrorCode } from '../host'
import { m } from '../i18n'

const texts: Record<ErrorCode, () => string> = {
  not_found: m.error_not_found,
  conflict: m.error_conflict,
  invalid: m.error_invalid,
  machine_not_running: m.error_machine_not_running,
  machine_failed: m.error_machine_failed,
  engine_failed: m.error_engine_failed,
  daemon_not_running: m.error_daemon_not_running,
  version_mismatch: m.error_version_mismatch,
  unauthorized: m.error_unauthorized,
  internal: m.error_internal,
}

/** An error's code in the user's words. */
export function errorText(code: ErrorCode): string {
  return texts[code]()
}
