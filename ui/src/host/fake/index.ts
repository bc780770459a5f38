/**
 * A host that is only a script, for development and for the screen tests.
 *
 * It answers and fails as the daemon does: same codes, same words, a fresh list after each change, and nothing while it
 * is not there. What it does is decided by its scenario and by what it is asked, never by chance.
 */
import type { ApiError, Calls, ErrorCode, Event, LogChunk, MachineState, Subscriptions } from '../generated'
import {
  HostError,
  type CallArgs,
  type CallName,
  type Host,
  type Observer,
  type SubscriptionName,
} from '../host'
import { logLine, MANY, SOME, summary, webLog } from './containers'
import { DISK_FAILURE, machineStatus, RUNNING, STAGES } from './machine'

const SCENARIOS = [
  'running',
  'empty',
  'many',
  'stopped',
  'preparing',
  'booting',
  'stopping',
  'failed',
  'boot-fails',
  'loading',
  'unreachable',
  'engine-away',
  'emulated',
  'refusing',
] as const
type Scenario = (typeof SCENARIOS)[number]

/** How long the fake takes for a step: enough to be seen, little enough not to be waited for. */
const STEP_MS = 120

const wait = () => new Promise<void>((resolve) => setTimeout(resolve, STEP_MS))

function fail(code: ErrorCode, message: string, detail: string | null = null): never {
  throw new HostError({ code, message, detail })
}

const UNREACHABLE: ApiError = {
  code: 'daemon_not_running',
  message: 'no host daemon answers at /run/user/1000/caisson/host.sock',
  detail: 'it is not running: `caisson start` starts it',
}

export function fakeHost(scenario: string): Host {
  const known = SCENARIOS.find((one) => one === scenario)
  if (!known) throw new Error(`there is no scenario ${scenario}; there are ${SCENARIOS.join(', ')}`)
  return new FakeHost(known)
}

class FakeHost implements Host {
  #scenario: Scenario
  #machine: MachineState
  #list
  #watchers = new Set<Observer<Event>>()

  constructor(scenario: Scenario) {
    this.#scenario = scenario
    this.#machine = firstState(scenario)
    const nowS = Date.now() / 1_000
    const made = scenario === 'empty' ? [] : scenario === 'many' ? MANY : SOME
    this.#list = made.map((one) => summary(one, nowS))
    // A test takes the daemon away and brings it back.
    addEventListener('fake-daemon', (event) => this.#daemon((event as CustomEvent<'gone' | 'back'>).detail))
  }

  #daemon(is: 'gone' | 'back'): void {
    this.#scenario = is === 'gone' ? 'unreachable' : 'running'
    if (is === 'back') return
    for (const watcher of this.#watchers) watcher.end(new HostError(UNREACHABLE))
    this.#watchers.clear()
  }

  async call<K extends CallName>(name: K, ...[args]: CallArgs<K>): Promise<Calls[K]['reply']> {
    if (this.#scenario === 'unreachable') throw new HostError(UNREACHABLE)
    await wait()
    const answer = this.#answers[name] as (args: Calls[K]['args'] | undefined) => Promise<Calls[K]['reply']>
    return answer(args)
  }

  subscribe<K extends SubscriptionName>(
    name: K,
    args: Subscriptions[K]['args'],
    observer: Observer<Subscriptions[K]['item']>,
  ): () => void {
    return name === 'events'
      ? this.#events(observer as Observer<Event>)
      : this.#logs(
          args as Subscriptions['container_logs']['args'],
          observer as Observer<Subscriptions['container_logs']['item']>,
        )
  }

  async openUrl(url: string): Promise<void> {
    if (this.#scenario === 'refusing') fail('internal', 'no program opens web pages', 'xdg-open: not found')
    document.documentElement.dataset.opened = url
  }

  async nameMenus(): Promise<void> {}

  #answers: { [K in CallName]: (args: Calls[K]['args']) => Promise<Calls[K]['reply']> } = {
    machine_status: async () => this.#status(),
    machine_start: () => this.#start(),
    machine_stop: () => this.#stop(),
    machine_restart: async () => {
      await this.#stop()
      return this.#start()
    },
    machine_log: async () => ({ path: '/tmp/console.log', text: DISK_FAILURE.console_tail }),
    version: async () => ({ daemon: '0.1.0', pid: 4_242, platform: 'linux/x86_64', engine: null }),
    container_list: async () => this.#list,
    container_start: async ({ id }) => {
      const one = this.#find(id)
      if (this.#scenario === 'refusing') {
        fail(
          'engine_failed',
          `driver failed programming external connectivity on endpoint ${one.name}: Bind for 0.0.0.0:8080 failed: address already in use`,
          'port 8080 is held by nginx (pid 812)',
        )
      }
      this.#change(id, { state: 'running', status: 'Up' })
      return null
    },
    container_stop: async ({ id }) => {
      this.#find(id)
      await wait()
      this.#change(id, { state: 'exited', status: 'Exited (0)' })
      return null
    },
    container_remove: async ({ id, force }) => {
      const one = this.#find(id)
      if (!force && one.state === 'running') {
        fail(
          'conflict',
          `cannot remove container "${one.name}": container is running: stop the container before removing or force remove`,
        )
      }
      this.#list = this.#list.filter((other) => other.id !== one.id)
      this.#tell()
      return null
    },
    port_list: async () => [],
    shutdown: async () => null,
  }

  #find(id: string) {
    if (this.#machine.kind !== 'running') fail('machine_not_running', 'the machine is not running')
    const found = this.#list.find((one) => one.id === id)
    return found ?? fail('not_found', `No such container: ${id}`)
  }

  #change(id: string, change: Partial<Calls['container_list']['reply'][number]>): void {
    this.#list = this.#list.map((one) => (one.id === id ? { ...one, ...change } : one))
    this.#tell()
  }

  #status() {
    const status = machineStatus(this.#machine)
    if (this.#scenario !== 'emulated') return status
    status.acceleration = { kind: 'emulated' }
    status.disk_full = { free_mib: 310, total_mib: 65_536 }
    status.notices = [
      {
        about: { kind: 'kvm_absent' },
        text: 'the processor is emulated, which is 15 to 20 times slower: there is no /dev/kvm',
        remedy: 'enable virtualization in the firmware and load kvm_intel or kvm_amd',
      },
    ]
    return status
  }

  async #start() {
    this.#become({ kind: 'preparing' })
    await wait()
    for (const stage of STAGES) {
      this.#become({ kind: 'booting', stage })
      await wait()
      if (this.#scenario === 'boot-fails' && stage === DISK_FAILURE.stage) {
        this.#become({ kind: 'failed', failure: DISK_FAILURE })
        fail('machine_failed', DISK_FAILURE.message, DISK_FAILURE.remedy)
      }
    }
    this.#become(RUNNING)
    return this.#status()
  }

  async #stop() {
    this.#become({ kind: 'stopping' })
    await wait()
    this.#become({ kind: 'stopped' })
    return this.#status()
  }

  #become(state: MachineState): void {
    this.#machine = state
    this.#tell()
  }

  #tell(): void {
    for (const watcher of this.#watchers) this.#tellOne(watcher)
  }

  #tellOne(watcher: Observer<Event>): void {
    const up = this.#machine.kind === 'running' && this.#machine.engine.kind === 'up'
    watcher.item({ kind: 'machine', value: this.#status() })
    watcher.item({ kind: 'containers', value: up ? this.#list : null })
    watcher.item({ kind: 'ports', value: [] })
  }

  #events(observer: Observer<Event>): () => void {
    const timer = setTimeout(() => {
      if (this.#scenario === 'unreachable') observer.end(new HostError(UNREACHABLE))
      else if (this.#scenario !== 'loading') {
        this.#watchers.add(observer)
        this.#tellOne(observer)
      }
    })
    return () => {
      clearTimeout(timer)
      this.#watchers.delete(observer)
    }
  }

  #logs(
    { id, follow, timestamps }: Subscriptions['container_logs']['args'],
    observer: Observer<Subscriptions['container_logs']['item']>,
  ): () => void {
    const one = this.#list.find((other) => other.id === id)
    let line = 120
    const timed = (chunk: LogChunk): LogChunk =>
      timestamps
        ? { ...chunk, text: chunk.text.replaceAll(/^(?=.)/gm, `${new Date().toISOString()} `) }
        : chunk
    const began = setTimeout(() => {
      if (!one)
        return observer.end(
          new HostError({ code: 'not_found', message: `No such container: ${id}`, detail: null }),
        )
      if (one.name === 'cache') {
        return observer.end(
          new HostError({
            code: 'engine_failed',
            message: 'configured logging driver does not support reading',
            detail: null,
          }),
        )
      }
      if (one.name === 'web') for (const chunk of webLog(line)) observer.item(timed(chunk))
      if (one.state !== 'running' || !follow) observer.end(null)
    })
    const more = setInterval(
      () => one?.name === 'web' && follow && observer.item(timed(logLine(line++))),
      1_000,
    )
    return () => {
      clearTimeout(began)
      clearInterval(more)
    }
  }
}

function firstState(scenario: Scenario): MachineState {
  switch (scenario) {
    case 'stopped':
    case 'boot-fails':
      return { kind: 'stopped' }
    case 'preparing':
      return { kind: 'preparing' }
    case 'booting':
      return { kind: 'booting', stage: 'disk' }
    case 'stopping':
      return { kind: 'stopping' }
    case 'failed':
      return { kind: 'failed', failure: DISK_FAILURE }
    case 'engine-away':
      return {
        kind: 'running',
        boot_ms: 5_369,
        engine: {
          kind: 'restarting',
          status: 'signal 9',
          tail: 'opening /var/lib/caisson\nlistening on /run/caisson/docker.sock',
        },
      }
    case 'running':
    case 'empty':
    case 'many':
    case 'loading':
    case 'unreachable':
    case 'emulated':
    case 'refusing':
      return RUNNING
  }
}
