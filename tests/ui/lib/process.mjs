import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

/** Waits until a process is gone and its parent has noticed. */
export async function hasEnded(pid) {
  // `tail --pid` watches it: node can only wait for its own children.
  await promisify(execFile)('tail', [`--pid=${pid}`, '-f', '/dev/null'])
}
