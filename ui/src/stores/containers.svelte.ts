/** All containers, live. */
import type { ContainerSummary } from '../host'

class Containers {
  /** `null` while the engine does not answer, `undefined` until the host has told anything. */
  list = $state.raw<ContainerSummary[] | null | undefined>(undefined)

  get running(): number {
    return this.list?.filter((container) => container.state === 'running').length ?? 0
  }

  find(id: string | null): ContainerSummary | undefined {
    return id === null ? undefined : this.list?.find((container) => container.id === id)
  }
}

export const containers = new Containers()
