import { expect, test } from 'vitest'
import { LogBuffer } from './buffer'
import { markMatches, matchingLines, nextMatch } from './search'

function log(text: string) {
  const buffer = new LogBuffer()
  buffer.append([{ stream: 'stdout', text }])
  return buffer.blocks
}

test('finds lines without regard to case', () => {
  expect(matchingLines(log('GET /\nerror\nPOST /\nError: x\n'), 'ERROR')).toEqual([1, 3])
  expect(matchingLines(log('a\n'), '')).toEqual([])
})

test('marks every match and keeps the colours around and inside it', () => {
  const line = log('go \x1b[31mred\x1b[0m go\n')[0]!.lines[0]!
  expect(markMatches(line, 'GO').map((piece) => [piece.text, piece.marked])).toEqual([
    ['go', true],
    [' ', false],
    ['red', false],
    [' ', false],
    ['go', true],
  ])
  const across = markMatches(line, 'o red g')
  expect(across.filter((piece) => piece.marked).map((piece) => piece.text)).toEqual(['o ', 'red', ' g'])
})

test('goes round at both ends, and begins at the nearest end', () => {
  expect(nextMatch([3, 5, 9], null, 1)).toBe(3)
  expect(nextMatch([3, 5, 9], null, -1)).toBe(9)
  expect(nextMatch([3, 5, 9], 9, 1)).toBe(3)
  expect(nextMatch([3, 5, 9], 3, -1)).toBe(9)
  expect(nextMatch([3, 5, 9], 4, 1)).toBe(3)
  expect(nextMatch([], 4, 1)).toBeNull()
})
