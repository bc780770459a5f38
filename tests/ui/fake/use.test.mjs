// What a user does with the pages, by mouse and by keyboard, against the fake host.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { openPages } from '../lib/pages.mjs'

let pages
before(async () => (pages = await openPages()))
after(() => pages.close())

/** A test with one window of its own. */
function scenario(name, [fake, address, look], steps) {
  test(name, async () => {
    const screen = await pages.open(fake, address, look)
    await steps(screen, screen.page)
    assert.deepEqual(screen.faults, [])
    await screen.close()
  })
}

scenario(
  'starting the machine shows each stage, then the containers',
  ['stopped', '#/home'],
  async (screen, page) => {
    await screen.button('Start').click()
    for (const stage of ['hypervisor', 'kernel', 'agent', 'disk', 'engine', 'socket']) {
      await page.locator(`[data-stage=${stage}][data-progress=active]`).waitFor()
    }
    await screen.text('Running').waitFor()
    await screen.text('web').waitFor()
  },
)

scenario(
  'a boot that fails says why, shows the console, and can be tried again',
  ['boot-fails', '#/home'],
  async (screen, page) => {
    await screen.button('Start').click()
    await page.locator('[data-code=stage_timed_out]').waitFor()
    assert.match(await page.locator('pre').textContent(), /I\/O timeout/)
    await screen.button('Start again').waitFor()
    // The failure is told where it belongs, not twice.
    assert.equal(await page.getByRole('alert').count(), 1)
  },
)

scenario('stopping and restarting', ['running', '#/home'], async (screen) => {
  await screen.button('Restart').click()
  await screen.text('Stopping').waitFor()
  await screen.text('Running').waitFor()
  await screen.button('Stop').click()
  await screen.text('Stopped').waitFor()
  await screen.button('Start').waitFor()
})

scenario('the docker command is copied', ['running', '#/home'], async (screen, page) => {
  await screen.button('Copy Try it').click()
  await screen.button('Copied').waitFor()
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'docker --context caisson ps')
})

scenario('from a running container on Home to its details', ['running', '#/home'], async (screen, page) => {
  await page.getByRole('link', { name: 'web', exact: true }).click()
  await page.getByRole('region', { name: 'web' }).waitFor()
  assert.equal(await screen.row('web').getAttribute('aria-selected'), 'true')
})

scenario(
  'the list is filtered, and says so when nothing is left',
  ['running', '#/containers'],
  async (screen, page) => {
    await screen.row('web').waitFor()
    await page.keyboard.press('/')
    await page.keyboard.type('orders')
    assert.deepEqual(await screen.names(), ['api', 'worker', 'migrate'])
    await page.keyboard.type(' nothing')
    await screen.text('No container matches “orders nothing”').waitFor()
    await screen.button('Clear filter').click()
    await screen.row('web').waitFor()
    await page.getByRole('switch', { name: 'Only running' }).click()
    assert.deepEqual(await screen.names(), ['web', 'api', 'worker', 'cache', 'db', 'dns'])
  },
)

scenario('the list is sorted by a click on a column', ['running', '#/containers'], async (screen, page) => {
  await screen.button('Name').click()
  assert.deepEqual((await screen.names()).slice(0, 3), ['api', 'cache', 'db'])
  await screen.button('Name').click()
  assert.deepEqual((await screen.names()).slice(0, 3), ['worker', 'web', 'migrate'])
  assert.equal(await page.getByRole('columnheader', { name: 'Name' }).getAttribute('aria-sort'), 'descending')
})

scenario(
  'the keyboard alone selects, reads and closes',
  ['running', '#/containers'],
  async (screen, page) => {
    await screen.row('web').focus()
    await page.keyboard.press('ArrowDown')
    await page.keyboard.press('ArrowDown')
    await page.getByRole('region', { name: 'worker' }).waitFor()
    await page.keyboard.press('Home')
    await page.getByRole('region', { name: 'web' }).waitFor()
    // Into the row's ports and buttons, then into the details.
    await page.keyboard.press('Tab')
    assert.equal(await page.evaluate(() => document.activeElement.textContent), '8080 → 80')
    await page.getByRole('tab', { name: 'Logs' }).focus()
    await page.keyboard.press('ArrowRight')
    await screen.text('ID').waitFor()
    await page.keyboard.press('Escape')
    await page.getByRole('region', { name: 'web' }).waitFor({ state: 'detached' })
    assert.equal(await screen.row('web').evaluate((row) => row === document.activeElement), true)
  },
)

scenario('a container is stopped, started and removed', ['running', '#/containers'], async (screen) => {
  await screen.row('db').hover()
  await screen.button('Stop db').click()
  await screen.row('db').and(screen.page.locator('[data-state=stopping]')).waitFor()
  await screen.row('db').and(screen.page.locator('[data-state=exited]')).waitFor()
  await screen.button('Start db').click()
  await screen.row('db').and(screen.page.locator('[data-state=running]')).waitFor()
  await screen.row('migrate').hover()
  await screen.button('Remove migrate').click()
  await screen.row('migrate').waitFor({ state: 'detached' })
})

scenario(
  'removing what runs asks first, and Escape is no',
  ['running', '#/containers'],
  async (screen, page) => {
    await screen.row('web').focus()
    await page.keyboard.press('Delete')
    const dialog = page.getByRole('alertdialog')
    await dialog.waitFor()
    await screen.shot('remove-dialog-light-en')
    await screen.assertSound()
    await page.keyboard.press('Escape')
    await dialog.waitFor({ state: 'detached' })
    assert.equal(await screen.row('web').count(), 1)
    await screen.row('web').focus()
    await page.keyboard.press('Delete')
    await screen.button('End and remove').click()
    await screen.row('web').waitFor({ state: 'detached' })
  },
)

scenario(
  'what the engine refuses is told with its words, until dismissed',
  ['refusing', '#/containers'],
  async (screen, page) => {
    await screen.row('migrate').hover()
    await screen.button('Start migrate').click()
    const alert = page.getByRole('alert')
    await alert.waitFor()
    assert.match(
      await alert.textContent(),
      /migrate could not be started.*address already in use.*nginx \(pid 812\)/s,
    )
    await screen.shot('refused-light-en')
    await screen.assertSound()
    await screen.button('Dismiss').click()
    await alert.waitFor({ state: 'detached' })
  },
)

scenario('a published port opens in the browser', ['running', '#/containers'], async (screen, page) => {
  await page.getByRole('link', { name: '8080 → 80' }).click()
  await page.locator('html[data-opened="http://localhost:8080"]').waitFor({ state: 'attached' })
  assert.equal(await screen.row('web').getAttribute('aria-selected'), 'false')
})

for (const [theme, locale, label] of [
  ['light', 'en', 'Log of web'],
  ['dark', 'ko', 'web 로그'],
]) {
  scenario(
    `the log is shown in colours, ${theme}, ${locale}`,
    ['running', '#/containers', { theme, locale }],
    async (screen, page) => {
      await screen.row('web').click()
      const log = page.getByRole('log', { name: label })
      await log.locator('[data-line="119"]').waitFor()
      await screen.shot(`logs-${theme}-${locale}`)
      await screen.assertSound()
    },
  )
}

scenario(
  'the log follows its end until one scrolls up, and takes hold again there',
  ['running', '#/containers'],
  async (screen, page) => {
    await screen.row('web').click()
    const log = page.getByRole('log')
    const follow = screen.button('Follow')
    const fromEnd = () => log.evaluate((box) => box.scrollHeight - box.scrollTop - box.clientHeight)
    await log.locator('[data-line="122"]').waitFor()
    assert.ok((await fromEnd()) < 24, 'new lines are in sight')
    await log.hover()
    await page.mouse.wheel(0, -400)
    await page.locator('button[aria-label=Follow][aria-pressed=false]').waitFor()
    await log.locator('[data-line="125"]').waitFor()
    assert.ok((await fromEnd()) > 100, 'the end comes and the view stays')
    await follow.click()
    await page.waitForFunction(() => {
      const box = document.querySelector('[role=log]')
      return box.scrollHeight - box.scrollTop - box.clientHeight < 24
    })
  },
)

scenario(
  'the log tells when its lines were written, if one wants to know',
  ['running', '#/containers'],
  async (screen, page) => {
    await screen.row('web').click()
    const line = page.locator('[role=log] [data-line="119"]')
    await line.waitFor()
    assert.equal(await line.locator('time').count(), 0)
    await screen.button('Show times').click()
    const time = line.locator('time')
    await time.waitFor()
    assert.match(await time.textContent(), /^\d\d:\d\d:\d\d\.\d{3}$/)
    await screen.shot('logs-with-times')
    await screen.assertSound()
    await screen.button('Show times').click()
    await time.waitFor({ state: 'detached' })
  },
)

scenario(
  'the log is searched, and what is found is walked through',
  ['running', '#/containers'],
  async (screen, page) => {
    await screen.row('web').click()
    await page.getByRole('log').locator('[data-line="119"]').waitFor()
    await page.getByRole('textbox', { name: 'Search the log' }).fill('MISSING.png')
    await screen.text('0 of 7').waitFor()
    await page.keyboard.press('Enter')
    await screen.text('1 of 7').waitFor()
    await page.locator('[data-line="9"] mark').and(page.getByText('missing.png')).waitFor()
    await page.keyboard.press('Shift+Enter')
    await screen.text('7 of 7').waitFor()
    await screen.shot('logs-search-light-en')
    await screen.assertSound()
    await page.getByRole('textbox', { name: 'Search the log' }).fill('nowhere to be found')
    await screen.text('No matches').waitFor()
  },
)

scenario(
  'the log is copied without colours, and its lines can be left unwrapped',
  ['running', '#/containers'],
  async (screen, page) => {
    await screen.row('web').click()
    const log = page.getByRole('log')
    await log.locator('[data-line="119"]').waitFor()
    await screen.button('Copy Logs').click()
    await screen.button('Copied').waitFor()
    const copied = await page.evaluate(() => navigator.clipboard.readText())
    assert.match(copied, /"GET \/ HTTP\/1\.1" 200 400\n/)
    assert.ok(copied.split('\n').length >= 120)
    await screen.button('Wrap lines').click()
    assert.equal(await log.evaluate((box) => getComputedStyle(box).whiteSpace), 'pre')
  },
)

scenario('a log that is empty or cannot be read says so', ['running', '#/containers'], async (screen) => {
  await screen.row('migrate').click()
  await screen.text('migrate has not written anything.').waitFor()
  await screen.row('cache').click()
  await screen.text('The log of cache could not be read').waitFor()
  await screen.shot('logs-failed-light-en')
  await screen.assertSound()
})

scenario('language and theme are switched and kept', ['running', '#/containers'], async (screen, page) => {
  await screen.button('Appearance').click()
  await page.getByRole('menuitemradio', { name: '한국어' }).click()
  await page.getByRole('menuitemradio', { name: '어둡게' }).click()
  await screen.shot('appearance-dark-ko')
  await screen.assertSound()
  await page.keyboard.press('Escape')
  await page.getByRole('heading', { name: '컨테이너' }).waitFor()
  assert.equal(await page.locator('html').getAttribute('lang'), 'ko')
  await page.reload()
  await page.getByRole('heading', { name: '컨테이너' }).waitFor()
  const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor)
  assert.equal(ground, 'rgb(22, 25, 27)')
})

scenario('a daemon that comes back is found again', ['running', '#/home'], async (screen, page) => {
  await screen.text('Running').waitFor()
  await page.evaluate(() => dispatchEvent(new CustomEvent('fake-daemon', { detail: 'gone' })))
  await screen.text('Caisson’s background service does not answer').waitFor()
  await page.evaluate(() => dispatchEvent(new CustomEvent('fake-daemon', { detail: 'back' })))
  await screen.text('Running').waitFor()
})

scenario('the details are resized with the keyboard', ['running', '#/containers'], async (screen, page) => {
  await screen.row('web').click()
  const line = page.getByRole('separator', {
    name: 'Height of the details',
  })
  const before = Number(await line.getAttribute('aria-valuenow'))
  await line.focus()
  await page.keyboard.press('ArrowUp')
  assert.equal(Number(await line.getAttribute('aria-valuenow')), before + 24)
})

scenario(
  'a narrow window still shows everything that matters',
  ['running', '#/containers', { width: 720, height: 480 }],
  async (screen, page) => {
    await screen.row('web').click()
    await page.getByRole('log').locator('[data-line="119"]').waitFor()
    await screen.shot('narrow-light-en')
    await screen.assertSound()
  },
)
