const FIRST_MS = 250
const LONGEST_MS = 5_000

/** How long to wait before the next attempt: doubling, with up to a quarter of jitter, never over five seconds. */
export function retryDelay(attempt: number, random: number = Math.random()): number {
  const steady = Math.min(FIRST_MS * 2 ** attempt, LONGEST_MS / 1.25)
  return Math.round(steady * (1 + random / 4))
}
