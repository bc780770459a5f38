/** What the home page says, from what the host told. */
import type {
  BootStage,
  ContainerSummary,
  MachineState,
  MachineStatus,
  NoticeCode,
  StageProgress,
  StageStatus,
} from '../../host'
import { duration, m } from '../../i18n'
import type { Tone } from '../../kit/tone'

/** The sentence under the machine's state. */
export function headline(state: MachineState, running: number | null, locale: string): string | null {
  switch (state.kind) {
    case 'stopped':
      return m.home_stopped()
    case 'preparing':
      return m.home_preparing()
    case 'booting':
      return m.home_booting()
    case 'running':
      return runningHeadline(duration(state.boot_ms, locale), running)
    case 'stopping':
      return m.home_stopping()
    case 'failed':
      return null
  }
}

function runningHeadline(time: string, running: number | null): string {
  if (running === null) return m.home_running_engine_away({ time })
  if (running === 0) return m.home_running_empty({ time })
  return m.home_running({ time, count: running })
}

export interface StageRow {
  stage: BootStage
  progress: StageProgress
  tone: Tone
  /** How long it took, or takes until now; none before it began. */
  tookMs: number | null
}

const tones: Record<StageProgress, Tone> = {
  waiting: 'stopped',
  active: 'starting',
  done: 'done',
  failed: 'failed',
}

/** The stages of the boot; `activeMs` is how long the present one has been seen at work. */
export function stageRows(stages: readonly StageStatus[], activeMs: number): StageRow[] {
  return stages.map(({ stage, progress, took_ms }) => ({
    stage,
    progress,
    tone: tones[progress],
    tookMs: progress === 'active' ? activeMs : took_ms,
  }))
}

/** Whether there is a boot to show: one under way, or the last one. */
export function hasBooted(stages: readonly StageStatus[]): boolean {
  return stages.some((stage) => stage.progress !== 'waiting')
}

export interface MachineActions {
  start: boolean
  stop: boolean
  restart: boolean
}

/** What the user may ask of a machine in this state. */
export function machineActions(kind: MachineState['kind']): MachineActions {
  return {
    start: kind === 'stopped' || kind === 'failed',
    stop: kind === 'running' || kind === 'preparing' || kind === 'booting',
    restart: kind === 'running',
  }
}

export interface Note {
  text: string
  remedy: string | null
  tone: Tone | null
}

/** What the user should know of a machine that does not fail: the urgent first. */
export function notes({ notices, disk_full, acceleration, hypervisor }: MachineStatus): Note[] {
  const all: Note[] = []
  if (disk_full) {
    const room = { free: size(disk_full.free_mib), total: size(disk_full.total_mib) }
    all.push({ text: m.home_disk_full(room), remedy: null, tone: 'starting' })
  }
  if (acceleration?.kind === 'emulated') {
    all.push({ text: m.home_runs_emulated({ hypervisor }), remedy: null, tone: null })
  }
  return [...all, ...notices.map(({ about }) => note(about))]
}

/** What the host noticed, in the user's words. */
function note(about: NoticeCode): Note {
  switch (about.kind) {
    case 'host_disk_full':
      return { text: m.notice_host_disk_full(), remedy: m.notice_host_disk_full_remedy(), tone: 'starting' }
    case 'paused':
      return { text: m.notice_paused({ why: about.why }), remedy: null, tone: 'starting' }
    case 'kvm_absent':
      return { text: m.notice_kvm_absent(), remedy: m.notice_kvm_absent_remedy(), tone: null }
    case 'kvm_forbidden':
      return { text: m.notice_kvm_forbidden(), remedy: m.notice_kvm_forbidden_remedy(), tone: null }
    case 'kvm_broken':
      return {
        text: m.notice_kvm_broken({ why: about.why }),
        remedy: m.notice_kvm_broken_remedy(),
        tone: null,
      }
    case 'kvm_too_slow':
      return {
        text: m.notice_kvm_too_slow({ seconds: about.limit_secs }),
        remedy: m.notice_kvm_too_slow_remedy(),
        tone: null,
      }
  }
}

/** A size in MiB, in the unit that keeps it short. */
export function size(mib: number): string {
  return mib < 1_024 ? m.size_mib({ size: mib }) : m.size_gib({ size: Math.round(mib / 102.4) / 10 })
}

export interface DockerHint {
  label: string
  text: string
}

/** How to reach the engine from a terminal. */
export function dockerHints(context: string, dockerHost: string): DockerHint[] {
  return [
    { label: m.home_docker_try(), text: `docker --context ${context} ps` },
    { label: m.home_docker_default(), text: `docker context use ${context}` },
    { label: m.home_docker_socket(), text: dockerHost },
  ]
}

const SHOWN = 6

/** The running containers that fit on the page, newest first, and how many more there are. */
export function runningNow(list: readonly ContainerSummary[]): { shown: ContainerSummary[]; more: number } {
  const running = list.filter((one) => one.state === 'running').sort((a, b) => b.created - a.created)
  return { shown: running.slice(0, SHOWN), more: Math.max(0, running.length - SHOWN) }
}
