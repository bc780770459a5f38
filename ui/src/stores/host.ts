/** The host that this window has opened; set once, before anything is drawn. */
import type { Host } from '../host'

let opened: Host | undefined

export function useHost(host: Host): void {
  opened = host
}

export function host(): Host {
  if (!opened) throw new Error('the host has not been opened')
  return opened
}
