import { expect, test } from 'vitest'
import type { LogChunk } from '../../../host'
import { BLOCK_LINES, LogBuffer, MAX_BLOCKS, MAX_LINE_CHARS } from './buffer'

const out = (text: string): LogChunk => ({ stream: 'stdout', text })
const err = (text: string): LogChunk => ({ stream: 'stderr', text })
const shown = (buffer: LogBuffer) =>
  buffer.blocks.flatMap((block) => block.lines.map((line) => `${line.stream[3]}:${line.text}`))

test('a line may come in pieces, and the streams do not mix in one', () => {
  const buffer = new LogBuffer()
  buffer.append([out('hel'), err('bad\n'), out('lo\n')])
  expect(shown(buffer)).toEqual(['e:bad', 'o:hello'])
})

test('what has no newline yet is shown, once', () => {
  const buffer = new LogBuffer()
  buffer.append([out('login: ')])
  expect(shown(buffer)).toEqual(['o:login: '])
  buffer.append([out('root\n')])
  expect(shown(buffer)).toEqual(['o:login: root'])
})

test('a line of a log with times has its time beside it, and both are copied', () => {
  const buffer = new LogBuffer(true)
  buffer.append([out('2026-11-22T02:40:11.123456789Z 10%\r100%\n2026-11-22T02:40:12Z \nno time\n')])
  const lines = buffer.blocks.flatMap((block) => block.lines)
  expect(lines.map((line) => [line.time, line.text])).toEqual([
    ['2026-11-22T02:40:11.123456789Z', '100%'],
    ['2026-11-22T02:40:12Z', ''],
    [null, 'no time'],
  ])
  expect(buffer.text()).toBe('2026-11-22T02:40:11.123456789Z 100%\n2026-11-22T02:40:12Z \nno time\n')
})

test('an empty line is a line', () => {
  const buffer = new LogBuffer()
  buffer.append([out('a\n\nb\n')])
  expect(buffer.text()).toBe('a\n\nb\n')
})

test('a progress bar shows its last state, and CRLF is one line end', () => {
  const buffer = new LogBuffer()
  buffer.append([out('10%\r50%\r100%\r\ndone\r\n')])
  expect(shown(buffer)).toEqual(['o:100%', 'o:done'])
})

test('a full block stays the same object while more is written', () => {
  const buffer = new LogBuffer()
  buffer.append([out('x\n'.repeat(BLOCK_LINES + 1))])
  const first = buffer.blocks[0]
  buffer.append([out('y\n')])
  expect(buffer.blocks[0]).toBe(first)
  expect(buffer.blocks[1]?.lines).toHaveLength(2)
})

test('lets the oldest go, and says so', () => {
  const buffer = new LogBuffer()
  buffer.append([out('x\n'.repeat(BLOCK_LINES * MAX_BLOCKS))])
  expect(buffer.capped).toBe(false)
  buffer.append([out('last\n')])
  expect(buffer.capped).toBe(true)
  expect(buffer.blocks).toHaveLength(MAX_BLOCKS)
  expect(shown(buffer).at(-1)).toBe('o:last')
})

test('an endless line is broken, whether it ends or not', () => {
  const buffer = new LogBuffer()
  buffer.append([out('z'.repeat(MAX_LINE_CHARS * 2 + 3))])
  expect(buffer.blocks[0]?.lines.map((line) => line.text.length)).toEqual([MAX_LINE_CHARS, MAX_LINE_CHARS])
  buffer.append([out('\n')])
  expect(shown(buffer).at(-1)).toBe('o:zzz')
})
