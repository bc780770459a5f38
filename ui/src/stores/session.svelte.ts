/**
 * The one subscription that feeds every store.
 *
 * When it breaks it is made anew, for as long as the window is open: the daemon may be restarted or upgraded under it.
 */
import type { Event, HangUp, HostError } from '../host'
import { containers } from './containers.svelte'
import { host } from './host'
import { machine } from './machine.svelte'
import { ports } from './ports.svelte'
import { retryDelay } from './retry'

export type Link =
  | { kind: 'connecting' }
  | { kind: 'up' }
  /** Broken; being tried again. */
  | { kind: 'down'; error: HostError | null }

class Session {
  link = $state.raw<Link>({ kind: 'connecting' })
  #hangUp: HangUp | null = null
  #timer: ReturnType<typeof setTimeout> | undefined
  #attempt = 0

  open(): void {
    this.#subscribe()
  }

  /** Tries again at once, and has the daemon started if it does not run. */
  async retry(): Promise<void> {
    this.link = { kind: 'connecting' }
    // A call starts the daemon; a subscription that is made anew only waits for one.
    await host()
      .call('machine_status')
      .catch(() => undefined)
    this.#subscribe()
  }

  #subscribe(): void {
    clearTimeout(this.#timer)
    this.#hangUp?.()
    this.#hangUp = host().subscribe('events', null, {
      item: (event) => this.#take(event),
      end: (error) => this.#ended(error),
    })
  }

  #take(event: Event): void {
    this.#attempt = 0
    this.link = { kind: 'up' }
    switch (event.kind) {
      case 'machine':
        machine.status = event.value
        break
      case 'containers':
        containers.list = event.value ?? null
        break
      case 'ports':
        ports.list = event.value
        break
    }
  }

  #ended(error: HostError | null): void {
    this.link = { kind: 'down', error }
    machine.status = null
    containers.list = undefined
    ports.list = []
    this.#timer = setTimeout(() => this.#subscribe(), retryDelay(this.#attempt++))
  }
}

export const session = new Session()
