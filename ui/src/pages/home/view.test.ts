import { beforeAll, expect, test } from 'vitest'
import type { ContainerSummary, MachineState, MachineStatus, NoticeCode } from '../../host'
import { speak } from '../../i18n'
import { machineStatus, RUNNING, DISK_FAILURE } from '../../host/fake/machine'
import { hasBooted, headline, machineActions, notes, runningNow, size, stageRows } from './view'

beforeAll(() => speak(() => 'en'))

const failed: MachineState = { kind: 'failed', failure: DISK_FAILURE }

test('the headline counts, and does not when the engine is away', () => {
  expect(headline(RUNNING, 0, 'en')).toBe('Started in 5.4 sec. No containers are running.')
  expect(headline(RUNNING, 1, 'en')).toBe('Started in 5.4 sec. 1 container is running.')
  expect(headline(RUNNING, 2, 'en')).toBe('Started in 5.4 sec. 2 containers are running.')
  expect(headline(RUNNING, null, 'en')).toContain('The engine does not answer')
  expect(headline(failed, null, 'en')).toBeNull()
})

test('a stage at work shows the time until now, one that is over its own', () => {
  const rows = stageRows(machineStatus({ kind: 'booting', stage: 'kernel' }).stages, 1_500)
  expect(rows.map((row) => [row.stage, row.tone, row.tookMs]).slice(0, 3)).toEqual([
    ['hypervisor', 'done', 412],
    ['kernel', 'starting', 1_500],
    ['agent', 'stopped', null],
  ])
  expect(stageRows(machineStatus(failed).stages, 0).map((row) => row.tone)).toEqual([
    'done',
    'done',
    'done',
    'failed',
    'stopped',
    'stopped',
  ])
})

test('there is a boot to show once one has begun', () => {
  expect(hasBooted(machineStatus({ kind: 'stopped' }).stages)).toBe(false)
  expect(hasBooted(machineStatus({ kind: 'booting', stage: 'hypervisor' }).stages)).toBe(true)
})

test('a boot can be stopped, a failure only started again', () => {
  expect(machineActions('booting')).toEqual({ start: false, stop: true, restart: false })
  expect(machineActions('failed')).toEqual({ start: true, stop: false, restart: false })
  expect(machineActions('stopping')).toEqual({ start: false, stop: false, restart: false })
})

test('a full disk comes before what is only slow, and a good machine has nothing to note', () => {
  const good = machineStatus(RUNNING)
  expect(notes(good)).toEqual([])
  const bad: MachineStatus = {
    ...good,
    acceleration: { kind: 'emulated' },
    disk_full: { free_mib: 310, total_mib: 65_536 },
  }
  expect(notes(bad).map((note) => note.text)).toEqual([
    'The data disk is nearly full: 310 MiB of 64 GiB are free.',
    'Runs on QEMU, which emulates the processor: everything works, but much slower.',
  ])
})

test('what the host noticed is told in the language of the window', () => {
  const seen = (about: NoticeCode) =>
    notes({ ...machineStatus(RUNNING), notices: [{ about, text: 'the host’s own', remedy: null }] })
  const [slow] = seen({ kind: 'kvm_too_slow', limit_secs: 5 })
  expect(slow?.text).toContain('within 5 seconds')
  expect(slow?.remedy).toContain('less busy')
  speak(() => 'ko')
  const korean = (
    [
      { kind: 'kvm_absent' },
      { kind: 'kvm_forbidden' },
      { kind: 'kvm_broken', why: 'x' },
      { kind: 'kvm_too_slow', limit_secs: 5 },
      { kind: 'host_disk_full' },
      { kind: 'paused', why: 'x' },
    ] satisfies NoticeCode[]
  ).flatMap((about) => seen(about).map((note) => note.text))
  speak(() => 'en')
  expect(korean).toHaveLength(6)
  for (const text of korean) expect(text).toMatch(/[가-힣]/)
})

test('sizes keep one digit', () => {
  expect([size(900), size(1_024), size(1_700)]).toEqual(['900 MiB', '1 GiB', '1.7 GiB'])
})

test('running now: the newest first, and how many are left out', () => {
  const list = Array.from({ length: 9 }, (_, i) => ({
    name: `c${i}`,
    created: i,
    state: i === 8 ? 'exited' : 'running',
  })) as ContainerSummary[]
  const { shown, more } = runningNow(list)
  expect(shown.map((one) => one.name)).toEqual(['c7', 'c6', 'c5', 'c4', 'c3', 'c2'])
  expect(more).toBe(2)
})
