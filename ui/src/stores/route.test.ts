import { expect, test } from 'vitest'
import { address, parseRoute } from './route.svelte'
import { systemLocale } from './locale'

test('an address leads back to what it was made from', () => {
  expect(parseRoute(address('containers', 'a/b c'))).toEqual({ page: 'containers', selected: 'a/b c' })
  expect(parseRoute(address('home'))).toEqual({ page: 'home', selected: null })
  expect(parseRoute('')).toEqual({ page: '', selected: null })
})

test("the system's first language that we speak", () => {
  expect(systemLocale(['ko-KR', 'en-US'])).toBe('ko')
  expect(systemLocale(['de-DE', 'ko'])).toBe('ko')
  expect(systemLocale(['fr'])).toBe('en')
})
