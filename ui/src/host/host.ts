/**
 * What a page may ask of the host, whoever carries it: the Tauri bridge, HTTP, or the fake.
 *
 * The calls themselves are the daemon's, generated from its Rust types; a door carries them and adds nothing.
 */
import type { ApiError, Calls, ErrorCode, Subscriptions } from './generated'

export type CallName = keyof Calls
export type SubscriptionName = keyof Subscriptions

/** A call without arguments is called without any. */
export type CallArgs<K extends CallName> = Calls[K]['args'] extends null ? [] : [args: Calls[K]['args']]

/** Is told what a subscription brings. After `end` comes nothing. */
export interface Observer<Item> {
  item(item: Item): void
  /** The subscription is over: by itself, or because of `error`. Not called after the subscriber hung up. */
  end(error: HostError | null): void
}

export type HangUp = () => void

export interface Host {
  /** Rejects with a {@link HostError}, never with anything else. */
  call<K extends CallName>(name: K, ...args: CallArgs<K>): Promise<Calls[K]['reply']>
  subscribe<K extends SubscriptionName>(
    name: K,
    args: Subscriptions[K]['args'],
    observer: Observer<Subscriptions[K]['item']>,
  ): HangUp
  /** Shows a page in the user's browser. */
  openUrl(url: string): Promise<void>
  /** Gives the tray and the menus the user's language. Does nothing where there are none. */
  nameMenus(words: MenuWords): Promise<void>
}

/** The words of everything that is drawn outside the page. */
export interface MenuWords {
  open: string
  start: string
  stop: string
  quit: string
  stopped: string
  starting: string
  running: string
  stopping: string
  failed: string
  unreachable: string
}

/** A failed call, with the daemon's code to decide by. */
export class HostError extends Error {
  readonly code: ErrorCode
  readonly detail: string | null

  constructor(error: ApiError) {
    super(error.message)
    this.name = 'HostError'
    this.code = error.code
    this.detail = error.detail
  }

  /** Anything that was thrown, as an error that a page can show. */
  static from(thrown: unknown): HostError {
    if (thrown instanceof HostError) return thrown
    if (isApiError(thrown)) return new HostError(thrown)
    const message = thrown instanceof Error ? thrown.message : String(thrown)
    return new HostError({ code: 'internal', message, detail: null })
  }
}

function isApiError(value: unknown): value is ApiError {
  return typeof value === 'object' && value !== null && 'code' in value && 'message' in value
}
