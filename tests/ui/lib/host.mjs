/** The programs that stand behind the window: the CLI, and docker against our context's socket. */
import { execFile } from 'node:child_process'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export const DESKTOP = process.env.CAISSON_DESKTOP

/** The standard output of `caisson ARGUMENTS`. */
export async function caisson(...args) {
  const { stdout } = await run(join(dirname(DESKTOP), 'caisson'), args)
  return stdout
}

/** The standard output of `docker --context caisson ARGUMENTS`. */
export async function docker(...args) {
  const { stdout } = await run(process.env.DOCKER ?? 'docker', ['--context', 'caisson', ...args])
  return stdout.trim()
}

/** Imports an image `name` that holds busybox and nothing else. */
export async function importBusybox(name) {
  const busybox = process.env.BUSYBOX ?? '/bin/busybox'
  // A directory of links to busybox, packed by tar on the way: no file is left behind.
  const script = `
    set -e
    dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT
    mkdir "$dir/bin" "$dir/tmp"
    cp "$1" "$dir/bin/busybox"
    for name in sh echo sleep cat httpd; do ln -s busybox "$dir/bin/$name"; done
    tar -C "$dir" -c . | "$2" --context caisson import - "$3"`
  await run('sh', ['-c', script, 'import', busybox, process.env.DOCKER ?? 'docker', name])
}

/** The process id of the daemon that answers now. */
export async function daemonPid() {
  const { pid } = JSON.parse(await caisson('version', '--json'))
  if (!Number.isInteger(pid)) throw new Error('no daemon answers')
  return pid
}
