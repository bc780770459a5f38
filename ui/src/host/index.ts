/**
 * The only door to the host. Which one it is, is decided here and nowhere else.
 *
 * A shipped window knows only Tauri. A development build, in a plain browser, talks to a running daemon if the address
 * says `#daemon=http://127.0.0.1:PORT&token=TOKEN` (`caisson-host --dev-http`), else to the fake (`?fake=SCENARIO`).
 */
import type { Host } from './host'

export type * from './generated'
export { HostError, type HangUp, type Host, type MenuWords, type Observer } from './host'

const development = import.meta.env.DEV || import.meta.env.MODE === 'fake'

export async function openHost(): Promise<Host> {
  if (!development || '__TAURI_INTERNALS__' in window) {
    return (await import('./tauri')).tauriHost()
  }
  const daemon = daemonInAddress()
  if (daemon) return (await import('./http')).httpHost(daemon.url, daemon.token)
  return (await import('./fake')).fakeHost(new URLSearchParams(location.search).get('fake') ?? 'running')
}

/** Takes daemon and token out of the address, so that neither stays in it nor in the browser's history. */
function daemonInAddress(): { url: string; token: string } | null {
  const given = new URLSearchParams(location.hash.slice(1))
  const url = given.get('daemon')
  const token = given.get('token')
  if (url && token) {
    sessionStorage.setItem('daemon', JSON.stringify({ url, token }))
    history.replaceState(null, '', location.pathname + location.search)
  }
  const kept = sessionStorage.getItem('daemon')
  return kept ? (JSON.parse(kept) as { url: string; token: string }) : null
}
