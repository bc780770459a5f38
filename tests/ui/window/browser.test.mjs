// The pages in a plain browser, through the daemon's development door: the third way through `ui/src/host`.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { DESKTOP } from '../lib/host.mjs'
import { openPages } from '../lib/pages.mjs'
import { freePort } from '../lib/webdriver.mjs'

const TOKEN = 'a-token-of-this-test'

let daemon
let address
let pages
before(async () => {
  const port = await freePort()
  address = `http://127.0.0.1:${port}`
  daemon = spawn(
    join(dirname(DESKTOP), 'caisson-host'),
    ['--dev-http', `127.0.0.1:${port}`, '--vm-image', '/nonexistent/vm-image'],
    { env: { ...process.env, CAISSON_DEV_TOKEN: TOKEN }, stdio: ['ignore', 'inherit', 'inherit'] },
  )
  pages = await openPages({ connect: address })
})
after(async () => {
  await pages?.close()
  daemon.kill()
  if (daemon.exitCode === null) await once(daemon, 'exit')
})

test('a browser sees the machine live, and its failure', async () => {
  const screen = await pages.open(null, `#daemon=${encodeURIComponent(address)}&token=${TOKEN}`)
  await screen.text('Stopped').waitFor()
  assert.ok(!screen.page.url().includes(TOKEN), 'the token does not stay in the address')
  await screen.button('Start').click()
  await screen.page.locator('[data-code=image_unusable]').waitFor()
  await screen.close()
})

test('a wrong token is told as what it is', async () => {
  const screen = await pages.open(null, `#daemon=${encodeURIComponent(address)}&token=wrong`)
  await screen.text('Caisson’s background service does not answer').waitFor()
  await screen.page.getByText(/token/).waitFor()
  await screen.close()
})
