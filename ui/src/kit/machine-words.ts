/** The machine's states and stages in the user's words. */
import type { BootStage, FailureCode, MachineState } from '../host'
import { m } from '../i18n'
import type { Tone } from './tone'

type Kind = MachineState['kind']

const tones: Record<Kind, Tone> = {
  stopped: 'stopped',
  preparing: 'starting',
  booting: 'starting',
  running: 'running',
  stopping: 'starting',
  failed: 'failed',
}

const words: Record<Kind, () => string> = {
  stopped: m.machine_stopped,
  preparing: m.machine_preparing,
  booting: m.machine_booting,
  running: m.machine_running,
  stopping: m.machine_stopping,
  failed: m.machine_failed,
}

const stages: Record<BootStage, { name: () => string; text: () => string }> = {
  hypervisor: { name: m.stage_hypervisor, text: m.stage_hypervisor_text },
  kernel: { name: m.stage_kernel, text: m.stage_kernel_text },
  agent: { name: m.stage_agent, text: m.stage_agent_text },
  disk: { name: m.stage_disk, text: m.stage_disk_text },
  engine: { name: m.stage_engine, text: m.stage_engine_text },
  socket: { name: m.stage_socket, text: m.stage_socket_text },
}

const failures: Record<FailureCode, { text: () => string; remedy: () => string }> = {
  image_unusable: { text: m.failure_image_unusable, remedy: m.failure_image_unusable_remedy },
  data_disk_unusable: { text: m.failure_data_disk_unusable, remedy: m.failure_data_disk_unusable_remedy },
  engine_failed: { text: m.failure_engine_failed, remedy: m.failure_engine_failed_remedy },
  host_disk_full: { text: m.failure_host_disk_full, remedy: m.failure_host_disk_full_remedy },
  program_missing: { text: m.failure_program_missing, remedy: m.failure_program_missing_remedy },
  feature_missing: { text: m.failure_feature_missing, remedy: m.failure_feature_missing_remedy },
  hypervisor_failed: { text: m.failure_hypervisor_failed, remedy: m.failure_hypervisor_failed_remedy },
  stage_timed_out: { text: m.failure_stage_timed_out, remedy: m.failure_stage_timed_out_remedy },
  protocol_mismatch: { text: m.failure_protocol_mismatch, remedy: m.failure_protocol_mismatch_remedy },
  protocol_broken: { text: m.failure_protocol_broken, remedy: m.failure_protocol_broken_remedy },
  guest_failed: { text: m.failure_guest_failed, remedy: m.failure_guest_failed_remedy },
  guest_silent: { text: m.failure_guest_silent, remedy: m.failure_guest_silent_remedy },
  guest_panicked: { text: m.failure_guest_panicked, remedy: m.failure_guest_panicked_remedy },
  guest_powered_off: { text: m.failure_guest_powered_off, remedy: m.failure_guest_powered_off_remedy },
  machine_died: { text: m.failure_machine_died, remedy: m.failure_machine_died_remedy },
}

export const machineTone = (kind: Kind): Tone => tones[kind]
export const machineWord = (kind: Kind): string => words[kind]()
export const stageName = (stage: BootStage): string => stages[stage].name()
export const stageText = (stage: BootStage): string => stages[stage].text()
export const failureText = (code: FailureCode): string => failures[code].text()
export const failureRemedy = (code: FailureCode): string => failures[code].remedy()
