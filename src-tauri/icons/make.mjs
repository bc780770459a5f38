// Draws the icon set from icon.svg: `node src-tauri/icons/make.mjs` after a change of the drawing.
//
// Needs only what the screen tests already use (Chromium by playwright-core). .ico and .icns are plain
// containers of PNG files, written here rather than by one more tool.
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))
const { chromium } = createRequire(join(here, '../../tests/ui/package.json'))('playwright-core')

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
  args: ['--no-sandbox'],
})
const page = await browser.newPage()

async function draw(file, size) {
  const svg = readFileSync(join(here, file), 'utf8')
  await page.setViewportSize({ width: size, height: size })
  await page.setContent(`<style>*{margin:0}svg{display:block;width:${size}px;height:${size}px}</style>${svg}`)
  return page.screenshot({ omitBackground: true })
}

/** A Windows icon: a directory of PNG images. */
function ico(images) {
  const head = Buffer.alloc(6 + 16 * images.length)
  head.writeUInt16LE(1, 2)
  head.writeUInt16LE(images.length, 4)
  let offset = head.length
  images.forEach(({ size, png }, i) => {
    const at = 6 + 16 * i
    head.writeUInt8(size % 256, at)
    head.writeUInt8(size % 256, at + 1)
    head.writeUInt16LE(1, at + 4)
    head.writeUInt16LE(32, at + 6)
    head.writeUInt32LE(png.length, at + 8)
    head.writeUInt32LE(offset, at + 12)
    offset += png.length
  })
  return Buffer.concat([head, ...images.map((image) => image.png)])
}

/** An Apple icon: tagged PNG images. */
function icns(images) {
  const tags = { 32: 'ic11', 128: 'ic07', 256: 'ic08', 512: 'ic09' }
  const entries = images.map(({ size, png }) => {
    const head = Buffer.alloc(8)
    head.write(tags[size], 'ascii')
    head.writeUInt32BE(png.length + 8, 4)
    return Buffer.concat([head, png])
  })
  const body = Buffer.concat(entries)
  const head = Buffer.alloc(8)
  head.write('icns', 'ascii')
  head.writeUInt32BE(body.length + 8, 4)
  return Buffer.concat([head, body])
}

const images = new Map()
for (const size of [16, 32, 48, 128, 256, 512]) images.set(size, await draw('icon.svg', size))
const pick = (...sizes) => sizes.map((size) => ({ size, png: images.get(size) }))

const write = (name, bytes) => writeFileSync(join(here, name), bytes)
write('32x32.png', images.get(32))
write('128x128.png', images.get(128))
write('128x128@2x.png', images.get(256))
write('icon.png', images.get(512))
write('icon.ico', ico(pick(16, 32, 48, 256)))
write('icon.icns', icns(pick(32, 128, 256, 512)))
write('tray.png', await draw('tray.svg', 32))
write('tray-template.png', await draw('tray-template.svg', 44))
await browser.close()
