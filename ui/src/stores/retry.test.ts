import { expect, test } from 'vitest'
import { retryDelay } from './retry'

test('waits longer each time, and never longer than five seconds', () => {
  expect(retryDelay(0, 0)).toBe(250)
  expect(retryDelay(1, 0)).toBe(500)
  expect(retryDelay(3, 1)).toBe(2_500)
  expect(retryDelay(50, 1)).toBe(5_000)
})
