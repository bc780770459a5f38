/**
 * The built pages in a real browser, with the fake host behind them.
 *
 * They are served with the very Content-Security-Policy of the shipped window, so that what it forbids fails here.
 */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFile, readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { promisify } from 'node:util'
import axe from 'axe-core'
import { chromium } from 'playwright-core'
import { ROOT, shotPath } from './shots.mjs'

const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']
const DIST = join(ROOT, 'tests/output/ui-fake')
const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
}
const read = promisify(readFile)

/** The shipped window's policy, but for what pages in a plain browser may connect to. */
function policy(connect) {
  const shipped = shippedPolicy()
  return connect ? shipped.replace(/connect-src [^;]*/, `connect-src ${connect}`) : shipped
}

function shippedPolicy() {
  return JSON.parse(readFileSync(join(ROOT, 'src-tauri/tauri.conf.json'), 'utf8')).app.security.csp
}

async function serve(connect) {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, 'http://localhost').pathname)
    const file = path === '/' ? '/index.html' : path
    try {
      const body = await read(join(DIST, file))
      const type = TYPES[extname(file)] ?? 'application/octet-stream'
      response.writeHead(200, {
        'content-type': type,
        'content-security-policy': policy(connect),
      })
      response.end(body)
    } catch {
      response.writeHead(404).end()
    }
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

function findChromium() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM
  const names = ['chromium', 'chromium-browser', 'google-chrome']
  for (const name of names) {
    try {
      return execFileSync('sh', ['-c', `command -v ${name}`], {
        encoding: 'utf8',
      }).trim()
    } catch {
      // Not this one.
    }
  }
  throw new Error(`no browser: install chromium, or set CHROMIUM (looked for ${names.join(', ')})`)
}

/** A browser and the pages, which may connect to `connect`; `close` ends both. */
export async function openPages({ connect } = {}) {
  const server = await serve(connect)
  const browser = await chromium.launch({
    executablePath: findChromium(),
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--font-render-hinting=none'],
  })
  return {
    /** Opens `address` (such as `#/containers`) in a fresh profile; without a scenario it names the host itself. */
    async open(
      scenario,
      address = '#/home',
      { theme = 'light', locale = 'en', width = 1100, height = 720 } = {},
    ) {
      const context = await browser.newContext({
        viewport: { width, height },
        colorScheme: theme,
        locale: locale === 'ko' ? 'ko-KR' : 'en-US',
        permissions: ['clipboard-read', 'clipboard-write'],
        reducedMotion: 'reduce',
      })
      const page = await context.newPage()
      const faults = []
      page.on('pageerror', (error) => faults.push(String(error)))
      page.on('console', (message) => message.type() === 'error' && faults.push(message.text()))
      await page.goto(
        `http://127.0.0.1:${server.address().port}/${scenario ? `?fake=${scenario}` : ''}${address}`,
      )
      await page.locator('aside').waitFor()
      return new Screen(page, faults)
    },
    async close() {
      await browser.close()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** One open window, and what can be found out about it. */
class Screen {
  constructor(page, faults) {
    this.page = page
    this.faults = faults
  }

  text(text) {
    return this.page.getByText(text, { exact: true }).first()
  }

  button(name) {
    return this.page.getByRole('button', { name, exact: true })
  }

  row(name) {
    return this.page.locator(`tr[data-name="${name}"]`)
  }

  /** The names in the list, top to bottom. */
  names() {
    return this.page.locator('tbody tr').evaluateAll((rows) => rows.map((row) => row.dataset.name))
  }

  shot(name) {
    return this.page.screenshot({ path: shotPath(`fake-${name}`) })
  }

  /** No rule of WCAG 2.2 A or AA is broken, nothing was thrown, and nothing that the policy forbids was tried. */
  async assertSound() {
    await this.page.evaluate(axe.source)
    const { violations } = await this.page.evaluate((runOnly) => {
      // A menu floats outside of the landmarks, as WAI-ARIA's own examples do; the rule is no part of WCAG.
      const rules = { region: { enabled: false } }
      return window.axe.run(document, { runOnly, rules })
    }, RULES)
    const told = violations.map(({ id, help, nodes }) => ({
      id,
      help,
      nodes: nodes.map((node) => [node.html, node.any[0]?.message]),
    }))
    assert.deepEqual(told, [])
    assert.deepEqual(this.faults, [])
  }

  close() {
    return this.page.context().close()
  }
}
