import { expect, test } from 'vitest'
import { clockTime, duration, relativeTime } from './format'

const NOW = Date.UTC(2026, 7, 20, 12)

test.each([
  [NOW + 5_000, 'now', '지금'],
  [NOW - 59_000, 'now', '지금'],
  [NOW - 60_000, '1 minute ago', '1분 전'],
  [NOW - 3 * 3_600_000, '3 hours ago', '3시간 전'],
  [NOW - 86_400_000, 'yesterday', '어제'],
  [NOW - 15 * 86_400_000, '2 weeks ago', '2주 전'],
  [NOW - 800 * 86_400_000, '2 years ago', '2년 전'],
])('says how long ago %i was', (at, english, korean) => {
  expect(relativeTime(at, NOW, 'en')).toBe(english)
  expect(relativeTime(at, NOW, 'ko')).toBe(korean)
})

test('a time of day has the milliseconds that it was told with', () => {
  expect(clockTime('2026-11-22T02:40:07.120456789Z')).toMatch(/^\d\d:\d\d:07\.120$/)
})

test.each([
  [0, '0 ms', '0ms'],
  [820, '820 ms', '820ms'],
  [4_210, '4.2 sec', '4.2초'],
  [65_400, '1 min 5 sec', '1분 5초'],
])('says how long %i ms are', (ms, english, korean) => {
  expect(duration(ms, 'en')).toBe(english)
  expect(duration(ms, 'ko')).toBe(korean)
})
