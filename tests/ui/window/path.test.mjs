// The whole path through the window: from "the machine is off" to a container's log, and back. The tests are steps of
// one story: each begins where the one before ended, because a boot is too dear to be done for each.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { caisson, daemonPid, DESKTOP, docker, importBusybox } from '../lib/host.mjs'
import { hasEnded } from '../lib/process.mjs'
import { freePort, Window } from '../lib/webdriver.mjs'

/** An emulated machine on a busy computer takes its time. */
const BOOT_MS = 300_000
const IMAGE = 'caisson-tests/busybox'
const STAGES = ['hypervisor', 'kernel', 'agent', 'disk', 'engine', 'socket']

let window
let port
before(async () => {
  port = await freePort()
})
after(async () => {
  await window?.close()
  await caisson('stop').catch(() => undefined)
})

const link = (page) => `a[href="#/${page}"]`
const state = '[data-testid=state]'
const row = (name) => `tr[data-name="${name}"]`

/** Waits for what a boot shows, but not for a boot that has failed. */
async function booting(selector, text = null) {
  const condition = `(selector, text) => document.querySelector('[data-code]')?.innerText ??
    ([...document.querySelectorAll(selector)].some((one) => text === null || one.innerText.trim() === text) && 'there')`
  const found = await window.until(condition, {
    within: BOOT_MS,
    args: [selector, text],
    what: `${selector} ${text}`,
  })
  assert.equal(found, 'there')
}

test('without the image, the failure says what is missing and what to do', async () => {
  const failing = await Window.open(DESKTOP, {
    ...process.env,
    CAISSON_VM_IMAGE: '/nonexistent/vm-image',
  })
  await failing.see(state, 'Stopped')
  await failing.click('button', 'Start')
  await failing.see('[data-code=image_unusable]')
  await failing.see(state, 'Failed')
  await failing.shot('1-failed')
  await failing.click(link('containers'))
  await failing.see('h2', 'The machine failed')
  await failing.close()
  await caisson('stop')
})

test('the window starts the daemon that it needs, and the machine is off', async () => {
  window = await Window.open(DESKTOP)
  await window.see(state, 'Stopped')
  await window.shot('2-stopped')
  await window.click(link('containers'))
  await window.see('h2', 'The machine is stopped')
  await window.shot('3-containers-stopped')
})

test('the machine starts stage by stage and tells how long each took', async () => {
  await window.click(link('home'))
  await window.see(state, 'Stopped')
  await window.run(`() => {
    window.seen = []
    new MutationObserver(() => {
      const at = document.querySelector('[data-progress=active]')?.dataset.stage
      if (at && window.seen.at(-1) !== at) window.seen.push(at)
    }).observe(document, { subtree: true, childList: true, attributes: true })
  }`)
  await window.click('button', 'Start')
  await booting('[data-stage=kernel][data-progress=active]')
  await window.shot('4-booting')
  await booting(state, 'Running')
  await window.shot('5-running')
  const seen = await window.run('() => window.seen')
  assert.deepEqual(
    seen,
    STAGES.filter((stage) => seen.includes(stage)),
    'the stages come in their order',
  )
  const done = await window.run(
    `() => [...document.querySelectorAll('[data-progress=done]')].map((row) => [row.dataset.stage, row.lastElementChild.innerText])`,
  )
  assert.deepEqual(
    done.map(([stage]) => stage),
    STAGES,
  )
  for (const [stage, took] of done) assert.match(took, /^[\d.]+ (ms|sec|min)/, stage)
})

test('the list is empty and says how to fill it', async () => {
  await window.click(link('containers'))
  await window.see('h2', 'No containers yet')
  await window.shot('6-empty')
})

test('a container that docker runs is in the list at once, with its port', async () => {
  await importBusybox(IMAGE)
  const script = 'echo hello from the container; echo oops >&2; exec httpd -f -vv -p 80 -h /tmp'
  await docker('run', '-d', '--name', 'web', '-p', `127.0.0.1:${port}:80`, IMAGE, 'sh', '-c', script)
  await window.see(`${row('web')}[data-state=running]`)
  await window.see(`${row('web')} a`, `${port} → 80`)
  await window.see('nav a', `Containers\n1`)
})

test('its log is shown, and goes on while it is looked at', async () => {
  await window.click(`${row('web')} td`)
  await window.see('[role=log] [data-line]', 'hello from the container')
  await window.see('[role=log] [data-line][title="Standard error"]', 'oops')
  const answer = await fetch(`http://127.0.0.1:${port}/nowhere`)
  assert.equal(answer.status, 404)
  await window.until(`() => document.querySelector('[role=log]')?.textContent.includes('response:404')`)
  await window.shot('7-log')
})

test('the log tells when a line was written, as docker does', async () => {
  const [written] = (await docker('logs', '-t', 'web')).split(' ')
  await window.seeNo('[role=log] time')
  await window.click('section button', 'Show times')
  const time = `[role=log] time[datetime="${written}"]`
  await window.see(time)
  assert.match(await window.run(`() => document.querySelector('${time}').textContent`), /^\d\d:\d\d:\d\d\.\d{3}$/)
  await window.shot('7-log-with-times')
  await window.click('section button', 'Show times')
  await window.seeNo('[role=log] time')
})

test('it is stopped and its port closes; it is started and the port is back', async () => {
  await window.click('section button', 'Stop')
  await window.see(`${row('web')}[data-state=stopping]`)
  await window.see(`${row('web')}[data-state=exited]`, null, {
    within: 60_000,
  })
  await window.shot('8-exited')
  await assert.rejects(fetch(`http://127.0.0.1:${port}/`), 'nothing listens any more')
  await window.click('section button', 'Start')
  await window.see(`${row('web')}[data-state=running]`, null, {
    within: 60_000,
  })
  assert.equal((await fetch(`http://127.0.0.1:${port}/nowhere`)).status, 404)
  // The log of the new run is read without being asked for.
  await window.until(
    `() => document.querySelector('[role=log]')?.textContent.split('hello from').length === 3`,
  )
})

test('what docker does not allow is told in its words', async () => {
  await docker('create', '--name', 'rival', '-p', `127.0.0.1:${port}:80`, IMAGE, 'sleep', '60')
  await window.click(`${row('rival')} td`)
  await window.click('section button', 'Start')
  await window.until(
    `() => document.querySelector('[role=alert]')?.innerText.includes('port is already allocated')`,
  )
  await window.shot('9-refused')
  await window.click('[role=alert] button', 'Dismiss')
  await window.click('section button', 'Remove')
  await window.seeNo(row('rival'))
})

test('removing what runs asks first', async () => {
  await window.click(`${row('web')} td`)
  await window.click('section button', 'Remove')
  await window.see('[role=alertdialog]')
  await window.shot('10-remove')
  await window.click('[role=alertdialog] button', 'Cancel')
  await window.seeNo('[role=alertdialog]')
  assert.equal(await docker('ps', '-q', '--filter', 'name=web').then((ids) => ids !== ''), true)
  await window.click('section button', 'Remove')
  await window.click('[role=alertdialog] button', 'End and remove')
  await window.seeNo(row('web'), { within: 60_000 })
  assert.equal(await docker('ps', '-aq'), '')
})

test('Korean and dark, and both are remembered', async () => {
  await docker('run', '-d', '--name', 'sleeper', IMAGE, 'sleep', '1000')
  await window.see(`${row('sleeper')}[data-state=running]`)
  await window.click('aside footer button')
  await window.click('[role=menuitemradio]', '한국어')
  await window.click('[role=menuitemradio]', '어둡게')
  await window.press('\uE00C')
  await window.seeNo('[role=menu]')
  await window.see('h1', '컨테이너')
  await window.click(`${row('sleeper')} td`)
  await window.shot('11-containers-dark-ko')
  await window.click(link('home'))
  await window.see(state, '실행 중')
  await window.shot('12-home-dark-ko')
})

test('a closed window leaves daemon, machine and containers alone', async () => {
  const pid = await daemonPid()
  await window.close()
  assert.equal(await daemonPid(), pid)
  assert.notEqual(await docker('ps', '-q'), '')
  window = await Window.open(DESKTOP)
  await window.see(state, '실행 중')
  await window.see('a', 'sleeper')
})

test('started a second time, it shows the window that is there', async () => {
  const second = spawn(DESKTOP, { stdio: 'ignore' })
  const [code] = await once(second, 'exit')
  assert.equal(code, 0)
  await window.see(state, '실행 중')
})

test('a killed daemon is noticed, and one click brings it back', async () => {
  const pid = await daemonPid()
  process.kill(pid, 'SIGKILL')
  await hasEnded(pid)
  await window.see('h2', 'Caisson 백그라운드 서비스가 응답하지 않아요')
  await window.shot('13-daemon-gone')
  await window.click('button', '다시 시도')
  await window.see(state, '중지됨', { within: 60_000 })
})

test('the machine is started again, has kept its container, and is stopped from the window', async () => {
  await window.click('button', '시작')
  await booting(state, '실행 중')
  await window.click(link('containers'))
  await window.see(row('sleeper'))
  await window.click(link('home'))
  await window.click('button', '중지')
  await window.see(state, '중지됨', { within: 120_000 })
  await window.shot('14-stopped-again')
})
