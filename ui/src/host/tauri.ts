/** The door of the real window. The only module that knows Tauri. */
import { Channel, invoke } from '@tauri-apps/api/core'
import type { ApiError, Calls, Subscriptions } from './generated'
import {
  HostError,
  type CallArgs,
  type CallName,
  type HangUp,
  type Host,
  type MenuWords,
  type Observer,
  type SubscriptionName,
} from './host'

/** What the bridge sends down a channel. */
type Message<Item> = { items: Item[] } | { end: ApiError | null }

async function command<T>(name: string, args: Record<string, unknown>): Promise<T> {
  try {
    return await invoke<T>(name, args)
  } catch (thrown) {
    throw HostError.from(thrown)
  }
}

export function tauriHost(): Host {
  return {
    call<K extends CallName>(name: K, ...[args]: CallArgs<K>) {
      return command<Calls[K]['reply']>('call', { call: request(name, args) })
    },

    subscribe<K extends SubscriptionName>(
      name: K,
      args: Subscriptions[K]['args'],
      observer: Observer<Subscriptions[K]['item']>,
    ): HangUp {
      const channel = new Channel<Message<Subscriptions[K]['item']>>()
      let open = true
      const end = (error: HostError | null) => {
        if (!open) return
        open = false
        observer.end(error)
      }
      channel.onmessage = (message) => {
        if (!open) return
        if ('items' in message) message.items.forEach((item) => open && observer.item(item))
        else end(message.end && new HostError(message.end))
      }
      const started = command<number>('subscribe', { subscribe: request(name, args), channel })
      started.catch((error: unknown) => end(HostError.from(error)))
      return () => {
        open = false
        // Hanging up on what never began, or has ended by itself, needs nothing.
        started.then((id) => command('unsubscribe', { id })).catch(() => undefined)
      }
    },

    openUrl: (url: string) => command<void>('open_url', { url }),
    nameMenus: (words: MenuWords) => command<void>('name_menus', { words }),
  }
}

/** A request as the daemon's wire has it: no `args` where there are none. */
function request(name: string, args: unknown): Record<string, unknown> {
  return args === null || args === undefined ? { name } : { name, args }
}
