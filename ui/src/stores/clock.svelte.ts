/** The time, for words such as "2 minutes ago". Ticks only while something shows it. */
import { createSubscriber } from 'svelte/reactivity'

const TICK_MS = 10_000

const ticks = createSubscriber((update) => {
  const timer = setInterval(update, TICK_MS)
  return () => clearInterval(timer)
})

/** Milliseconds since 1970; read in a template, it stays true. */
export function now(): number {
  ticks()
  return Date.now()
}
