/**
 * The door of a plain browser to a running daemon (`caisson-host --dev-http`). For development only: a shipped window
 * does not contain it.
 */
import type { ApiError, Calls, Subscriptions } from './generated'
import {
  HostError,
  type CallArgs,
  type CallName,
  type HangUp,
  type Host,
  type Observer,
  type SubscriptionName,
} from './host'

/** What the daemon answers, as on its socket. */
type Answer<Item> = { ok: unknown } | { error: ApiError } | { item: Item } | { end: object }

export function httpHost(daemon: string, token: string): Host {
  async function post(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
    try {
      return await fetch(`${daemon}${path}`, {
        method: 'POST',
        headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
        ...(signal ? { signal } : {}),
      })
    } catch (thrown) {
      const detail = thrown instanceof Error ? thrown.message : null
      throw new HostError({
        code: 'daemon_not_running',
        message: `no host daemon answers at ${daemon}`,
        detail,
      })
    }
  }

  return {
    async call<K extends CallName>(name: K, ...[args]: CallArgs<K>) {
      const response = await post('/call', request(name, args))
      const answer = (await response.json()) as Answer<never>
      if ('ok' in answer) return answer.ok as Calls[K]['reply']
      throw HostError.from('error' in answer ? answer.error : new Error('a call was answered with items'))
    },

    subscribe<K extends SubscriptionName>(
      name: K,
      args: Subscriptions[K]['args'],
      observer: Observer<Subscriptions[K]['item']>,
    ): HangUp {
      const hangUp = new AbortController()
      const read = async () => {
        const response = await post('/subscribe', request(name, args), hangUp.signal)
        for await (const line of lines(response)) {
          const answer = JSON.parse(line) as Answer<Subscriptions[K]['item']>
          if ('item' in answer) observer.item(answer.item)
          else if ('error' in answer) throw new HostError(answer.error)
          else return
        }
        throw new HostError({ code: 'daemon_not_running', message: 'the host daemon hung up', detail: null })
      }
      read().then(
        () => observer.end(null),
        (thrown: unknown) => hangUp.signal.aborted || observer.end(HostError.from(thrown)),
      )
      return () => hangUp.abort()
    },

    async openUrl(url) {
      window.open(url, '_blank', 'noopener')
    },

    async nameMenus() {},
  }
}

async function* lines(response: Response): AsyncGenerator<string> {
  if (!response.body) return
  let rest = ''
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    const parts = (rest + value).split('\n')
    rest = parts.pop() ?? ''
    yield* parts.filter((part) => part !== '')
  }
}

function request(name: string, args: unknown): Record<string, unknown> {
  return args === null || args === undefined ? { name } : { name, args }
}
