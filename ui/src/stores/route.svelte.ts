/** Which page is shown: the address' fragment, so that going back works. */
import { createSubscriber } from 'svelte/reactivity'

const changes = createSubscriber((update) => {
  addEventListener('hashchange', update)
  return () => removeEventListener('hashchange', update)
})

/** The page's name, and what it is asked to select. */
export interface Route {
  page: string
  selected: string | null
}

export function parseRoute(hash: string): Route {
  const [page = '', selected] = hash.replace(/^#\/?/, '').split('/', 2)
  return { page, selected: selected ? decodeURIComponent(selected) : null }
}

export function route(): Route {
  changes()
  return parseRoute(location.hash)
}

export function address(page: string, selected?: string | null): string {
  return selected ? `#/${page}/${encodeURIComponent(selected)}` : `#/${page}`
}

export function go(page: string, selected?: string | null): void {
  location.hash = address(page, selected)
}

/** Another selection on the same page: not worth an entry in the history. */
export function select(page: string, selected: string | null): void {
  history.replaceState(null, '', address(page, selected))
  dispatchEvent(new HashChangeEvent('hashchange'))
}
