import { expect, test } from 'vitest'
import { parseLine, PLAIN } from './ansi'

const text = (line: string) =>
  parseLine(line, PLAIN)
    .pieces.map((piece) => piece.text)
    .join('')

test('colours a piece and comes back to plain', () => {
  const { pieces, style } = parseLine('a\x1b[1;31mred\x1b[0mb', PLAIN)
  expect(pieces).toEqual([
    { text: 'a', style: PLAIN },
    { text: 'red', style: { colour: 1, bold: true } },
    { text: 'b', style: PLAIN },
  ])
  expect(style).toEqual(PLAIN)
})

test('a colour lasts into the next line', () => {
  const { style } = parseLine('\x1b[92mgreen', PLAIN)
  expect(parseLine('still', style).pieces).toEqual([{ text: 'still', style: { colour: 10, bold: false } }])
})

test.each([
  ['\x1b[38;5;208morange\x1b[39m', 'orange'],
  ['\x1b[38;2;1;2;31mrgb', 'rgb'],
  ['\x1b[2K\x1b[1Gcleared', 'cleared'],
  ['\x1b]0;title\x07shown', 'shown'],
  ['\x1b(Bcharset', 'charset'],
  ['bell\x07 tab\tkept', 'bell tab\tkept'],
  ['cut\x1b[', 'cut'],
])('leaves out what is no text: %j', (line, shown) => {
  expect(text(line)).toBe(shown)
})

test('an RGB colour whose numbers look like codes changes nothing', () => {
  expect(parseLine('\x1b[38;2;1;31;32mx', PLAIN).style).toEqual(PLAIN)
})
