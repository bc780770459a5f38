/** The fake's machine: what a real one tells, in every state. */
import type {
  BootStage,
  Failure,
  MachineState,
  MachineStatus,
  StageProgress,
  StageStatus,
} from '../generated'

export const STAGES: readonly BootStage[] = ['hypervisor', 'kernel', 'agent', 'disk', 'engine', 'socket']

const TEXTS: Record<BootStage, string> = {
  hypervisor: 'Powering the machine on',
  kernel: 'Starting the Linux kernel',
  agent: 'Setting up the guest',
  disk: 'Checking the data disk',
  engine: 'Starting the container engine',
  socket: "Waiting for the engine's first answer",
}

const TOOK_MS: Record<BootStage, number> = {
  hypervisor: 412,
  kernel: 3_268,
  agent: 174,
  disk: 536,
  engine: 941,
  socket: 38,
}

export const BOOT_MS = Object.values(TOOK_MS).reduce((sum, ms) => sum + ms, 0)

/** All stages before `at` are done; `at` itself is as told. Without one, none has begun. */
function stages(at: BootStage | null, progress: StageProgress): StageStatus[] {
  const present = at === null ? -1 : STAGES.indexOf(at)
  return STAGES.map((stage, i) => {
    const is: StageProgress = i < present ? 'done' : i === present ? progress : 'waiting'
    const over = is === 'done' || is === 'failed'
    return { stage, progress: is, text: TEXTS[stage], took_ms: over ? TOOK_MS[stage] : null }
  })
}

export function machineStatus(state: MachineState): MachineStatus {
  return {
    state,
    stages: stagesOf(state),
    notices: [],
    hypervisor: 'QEMU',
    acceleration: { kind: 'hardware', by: 'KVM' },
    disk_full: null,
    docker_host: 'unix:///run/user/1000/caisson/docker.sock',
    docker_context: 'caisson',
  }
}

function stagesOf(state: MachineState): StageStatus[] {
  switch (state.kind) {
    case 'stopped':
    case 'preparing':
      return stages(null, 'waiting')
    case 'booting':
      return stages(state.stage, 'active')
    case 'running':
    case 'stopping':
      return stages('socket', 'done')
    case 'failed':
      return stages(state.failure.stage, 'failed')
  }
}

export const RUNNING: MachineState = { kind: 'running', boot_ms: BOOT_MS, engine: { kind: 'up' } }

export const DISK_FAILURE: Failure = {
  stage: 'disk',
  code: 'stage_timed_out',
  message: 'the stage disk took longer than 60 s',
  remedy: 'start again; if the disk is very large, its first check can take longer',
  console_tail: [
    '[    2.914021] virtio_blk virtio1: [vdb] 134217728 512-byte logical blocks (68.7 GB/64.0 GiB)',
    '[    3.007833] caisson-init: data disk: /dev/vdb has an ext4 file system',
    '[    3.011204] caisson-init: e2fsck -p /dev/vdb',
    '[    3.377018] caisson-init: e2fsck: recovering journal',
    '[   41.208114] virtio_blk virtio1: [vdb] I/O timeout, 12 requests outstanding',
  ].join('\n'),
}
