/**
 * As much of W3C WebDriver as these tests need, spoken with WebKitWebDriver.
 *
 * Waiting is done in the page: a condition is tried again at each change of the document, so that nothing here sleeps.
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { promisify } from 'node:util'
import { hasEnded } from './process.mjs'
import { shotPath } from './shots.mjs'

const run = promisify(execFile)
const ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'
const START_MS = 30_000

/**
 * Finds, in the page, what matches the selector and has exactly that text or label. What is scrolled out of sight has
 * no `innerText`, so the plain text counts as well.
 */
const FIND = `(selector, text) => [...document.querySelectorAll(selector)].find((element) => text === null ||
  [element.innerText, element.textContent, element.ariaLabel].some((one) => one?.trim() === text))`

/** A port that nothing uses now. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

/** A driver and one window. */
export class Window {
  #driver
  #url

  /** Starts the program in `env` and waits for its window. */
  static async open(program, env = process.env) {
    const window = new Window()
    await window.#startDriver(env)
    const options = {
      'webkitgtk:browserOptions': { binary: program, args: [] },
    }
    const { sessionId } = await window.#ask('POST', '/session', {
      capabilities: { alwaysMatch: options },
    })
    window.#url += `/session/${sessionId}`
    await window.#ask('POST', '/timeouts', {
      script: 600_000,
      implicit: 0,
    })
    return window
  }

  async #startDriver(env) {
    const port = await freePort()
    this.#driver = spawn('WebKitWebDriver', [`--port=${port}`, '--host=127.0.0.1'], {
      env: { ...env, TAURI_WEBVIEW_AUTOMATION: 'true' },
      stdio: ['ignore', 'inherit', 'inherit'],
    })
    this.#url = `http://127.0.0.1:${port}`
    const giveUpAt = Date.now() + START_MS
    for (;;) {
      const answer = await fetch(`${this.#url}/status`).catch((error) => error)
      if (answer.ok) return
      if (this.#driver.exitCode !== null || Date.now() > giveUpAt)
        throw new Error(`no WebKitWebDriver: ${answer}`)
    }
  }

  async #ask(method, path, body) {
    const response = await fetch(this.#url + path, {
      method,
      ...(body && { body: JSON.stringify(body) }),
    })
    const { value } = await response.json()
    if (!response.ok) throw new Error(`${value.error}: ${value.message}`)
    return value
  }

  /** Runs `body` in the page, with `args` as its arguments. */
  run(body, ...args) {
    return this.#ask('POST', '/execute/sync', {
      script: `return (${body})(...arguments)`,
      args,
    })
  }

  /** Waits until `condition`, a function for the page, gives something true, and returns that. */
  async until(condition, { within = 20_000, args = [], what = String(condition) } = {}) {
    const script = `
      const [limit, args] = arguments
      const done = arguments[arguments.length - 1]
      const attempt = () => (${condition})(...args)
      let timer
      const observer = new MutationObserver(() => look())
      function look() {
        const found = attempt()
        if (!found) return
        observer.disconnect()
        clearTimeout(timer)
        done({ found: found instanceof Node ? true : found })
      }
      timer = setTimeout(() => { observer.disconnect(); done({ text: document.body.innerText }) }, limit)
      observer.observe(document, { subtree: true, childList: true, attributes: true, characterData: true })
      look()`
    const answer = await this.#ask('POST', '/execute/async', {
      script,
      args: [within, args],
    })
    if ('found' in answer) return answer.found
    await this.shot('gave-up')
    throw new Error(`not within ${within} ms: ${what}\nThe window says:\n${answer.text}`)
  }

  /** Waits until something matches the selector and, if given, has exactly that text. */
  see(selector, text = null, options = {}) {
    return this.until(FIND, {
      what: `${selector} ${text ?? ''}`,
      ...options,
      args: [selector, text],
    })
  }

  /** Waits until nothing matches the selector. */
  seeNo(selector, options = {}) {
    const condition = '(selector) => !document.querySelector(selector)'
    return this.until(condition, {
      what: `no ${selector}`,
      ...options,
      args: [selector],
    })
  }

  /** Clicks, as a mouse would, what `see` finds, once nothing lies over it. */
  async click(selector, text = null) {
    const condition = `(selector, text) => {
      const found = (${FIND})(selector, text)
      if (!found) return false
      found.scrollIntoView({ block: 'nearest' })
      const { left, top, width, height } = found.getBoundingClientRect()
      const hit = document.elementFromPoint(left + width / 2, top + height / 2)
      if (!hit || !found.contains(hit)) return false
      document.querySelectorAll('[data-click]').forEach((old) => delete old.dataset.click)
      found.dataset.click = ''
      return true
    }`
    await this.until(condition, { what: `${selector} ${text ?? ''} that can be clicked`, args: [selector, text] })
    const element = await this.#ask('POST', '/element', { using: 'css selector', value: '[data-click]' })
    await this.#ask('POST', `/element/${element[ELEMENT]}/click`, {})
  }

  /** Presses keys where the focus is. */
  async press(...keys) {
    const actions = keys.flatMap((value) => [
      { type: 'keyDown', value },
      { type: 'keyUp', value },
    ])
    await this.#ask('POST', '/actions', {
      actions: [{ type: 'key', id: 'keyboard', actions }],
    })
  }

  /** What is really on the display: the driver's own pictures are of what should be. */
  async shot(name) {
    // Two frames: the one that is being drawn, and the one that is asked for here.
    await this.#ask('POST', '/execute/async', {
      script: 'const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))',
      args: [],
    })
    await run('import', ['-silent', '-window', 'root', shotPath(`window-${name}`)])
  }

  /** Closes the window, ends its program, which would stay in the tray, and ends the driver. */
  async close() {
    const programs = await children(this.#driver.pid)
    await this.#ask('DELETE', '').catch(() => undefined)
    await Promise.all(programs.map(end))
    this.#driver.kill()
    if (this.#driver.exitCode === null) await once(this.#driver, 'exit')
  }
}

/** The processes that `pid` has started itself. */
async function children(pid) {
  const threads = await readdir(`/proc/${pid}/task`)
  const lists = await Promise.all(
    threads.map((thread) => readFile(`/proc/${pid}/task/${thread}/children`, 'utf8')),
  )
  return lists.join(' ').trim().split(/\s+/).filter(Boolean).map(Number)
}

async function end(pid) {
  try {
    process.kill(pid, 'SIGTERM')
  } catch {
    // It has ended by itself.
  }
  await hasEnded(pid)
}
