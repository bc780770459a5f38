/** What the user has containers do: which of it is under way, and what failed last. */
import { SvelteMap } from 'svelte/reactivity'
import { HostError } from '../../host'
import { m } from '../../i18n'
import { host } from '../../stores/host'
import type { ContainerRow, Pending } from './view'

interface Problem {
  title: string
  error: HostError
}

class Actions {
  readonly pending = new SvelteMap<string, Pending>()
  problem = $state.raw<Problem | null>(null)

  start(row: ContainerRow): Promise<void> {
    return this.#run(row, 'starting', () => host().call('container_start', { id: row.id }))
  }

  stop(row: ContainerRow): Promise<void> {
    return this.#run(row, 'stopping', () => host().call('container_stop', { id: row.id }))
  }

  remove(row: ContainerRow): Promise<void> {
    return this.#run(row, 'removing', () => host().call('container_remove', { id: row.id, force: row.runs }))
  }

  openFailed(url: string, error: HostError): void {
    this.problem = { title: m.failed_open({ url }), error }
  }

  async #run(row: ContainerRow, pending: Pending, ask: () => Promise<unknown>): Promise<void> {
    this.problem = null
    this.pending.set(row.id, pending)
    try {
      await ask()
    } catch (thrown) {
      this.problem = { title: failed[pending]({ name: row.name }), error: HostError.from(thrown) }
    } finally {
      this.pending.delete(row.id)
    }
  }
}

const failed: Record<Pending, (of: { name: string }) => string> = {
  starting: m.failed_start,
  stopping: m.failed_stop,
  removing: m.failed_remove,
}

export const actions = new Actions()
