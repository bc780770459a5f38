/** The machine, live, and what one can have it do. */
import { HostError, type MachineState, type MachineStatus } from '../host'
import { host } from './host'

type Wish = 'machine_start' | 'machine_stop' | 'machine_restart'

class Machine {
  /** Nothing until the host has told. */
  status = $state.raw<MachineStatus | null>(null)
  /** What was asked for and is not answered yet. */
  wish = $state.raw<Wish | null>(null)
  /** Why the last wish came to nothing, unless the machine's own failure says it. */
  problem = $state.raw<HostError | null>(null)

  get state(): MachineState | null {
    return this.status?.state ?? null
  }

  start = () => this.#ask('machine_start')
  stop = () => this.#ask('machine_stop')
  restart = () => this.#ask('machine_restart')

  async #ask(wish: Wish): Promise<void> {
    this.wish = wish
    this.problem = null
    try {
      await host().call(wish)
    } catch (thrown) {
      const error = HostError.from(thrown)
      if (error.code !== 'machine_failed') this.problem = error
    } finally {
      if (this.wish === wish) this.wish = null
    }
  }
}

export const machine = new Machine()
