/** Where the screenshots go: test output, looked at by people. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
const OUTPUT = join(ROOT, 'tests/output/ui')

export function shotPath(name) {
  mkdirSync(OUTPUT, { recursive: true })
  return join(OUTPUT, `${name}.png`)
}
