/**
 * A log's lines, in blocks, with a limit.
 *
 * Blocks are what is drawn: one that is full never changes again, so only the last is ever drawn anew, and the oldest
 * goes when there are too many. What one stream has not ended with a newline waits while the other one writes.
 */
import type { LogChunk, LogStream } from '../../../host'
import { parseLine, PLAIN, type Piece, type Style } from './ansi'

export const BLOCK_LINES = 100
export const MAX_BLOCKS = 100
/** A line that is longer is broken: a webview cannot draw one of a megabyte. */
export const MAX_LINE_CHARS = 8_192

/** How a line begins in a log with times. */
const TIME = /^(\d{4}-\d\d-\d\dT[\d:.]+Z) /

export interface LogLine {
  /** Counted from the first line ever taken. */
  number: number
  stream: LogStream
  /** When it was written, in RFC 3339; only in a log that was asked for with times. */
  time: string | null
  pieces: Piece[]
  /** The same without colours. */
  text: string
}

export interface Block {
  id: number
  lines: readonly LogLine[]
}

export class LogBuffer {
  #blocks: Block[] = []
  #count = 0
  readonly #timed: boolean
  #styles: Record<LogStream, Style> = { stdout: PLAIN, stderr: PLAIN }
  /** What has no newline yet, by stream; it is shown as the last lines, and replaced when more comes. */
  #open: Record<LogStream, string> = { stdout: '', stderr: '' }

  /** `timed` says whether each line begins with its time. */
  constructor(timed = false) {
    this.#timed = timed
  }

  get blocks(): readonly Block[] {
    const open = this.#openLines()
    if (open.length === 0) return this.#blocks
    return [...this.#blocks, { id: -1, lines: open }]
  }

  /** Whether lines have been let go. */
  get capped(): boolean {
    return this.#count > (this.#blocks.at(0)?.lines.length ?? 0) && (this.#blocks[0]?.id ?? 0) > 0
  }

  append(chunks: readonly LogChunk[]): void {
    const lines: LogLine[] = []
    for (const { stream, text } of chunks) {
      const parts = (this.#open[stream] + text).split('\n')
      this.#open[stream] = parts.pop() ?? ''
      for (const part of parts) lines.push(...this.#close(stream, part))
      while (this.#open[stream].length > MAX_LINE_CHARS) {
        lines.push(...this.#close(stream, this.#open[stream].slice(0, MAX_LINE_CHARS)))
        this.#open[stream] = this.#open[stream].slice(MAX_LINE_CHARS)
      }
    }
    this.#push(lines)
  }

  /** All lines that are left, without colours. */
  text(): string {
    return this.blocks
      .flatMap((block) => block.lines.map((line) => `${line.time ? `${line.time} ` : ''}${line.text}\n`))
      .join('')
  }

  #close(stream: LogStream, raw: string): LogLine[] {
    const lines: LogLine[] = []
    for (let from = 0; from === 0 || from < raw.length; from += MAX_LINE_CHARS) {
      const { line, style } = this.#read(stream, raw.slice(from, from + MAX_LINE_CHARS), this.#count++)
      this.#styles[stream] = style
      lines.push(line)
    }
    return lines
  }

  #read(stream: LogStream, raw: string, number: number): { line: LogLine; style: Style } {
    const time = this.#timed ? (TIME.exec(raw)?.[1] ?? null) : null
    const written = time === null ? raw : raw.slice(time.length + 1)
    const { pieces, style } = parseLine(lastOverwrite(written), this.#styles[stream])
    return { line: { number, stream, time, pieces, text: pieces.map((piece) => piece.text).join('') }, style }
  }

  #openLines(): LogLine[] {
    return (['stdout', 'stderr'] as const)
      .filter((stream) => this.#open[stream] !== '')
      .map((stream, i) => this.#read(stream, this.#open[stream], this.#count + i).line)
  }

  #push(lines: readonly LogLine[]): void {
    let rest = lines
    const last = this.#blocks.at(-1)
    if (last && last.lines.length < BLOCK_LINES && rest.length > 0) {
      const room = BLOCK_LINES - last.lines.length
      this.#blocks[this.#blocks.length - 1] = { id: last.id, lines: [...last.lines, ...rest.slice(0, room)] }
      rest = rest.slice(room)
    }
    for (; rest.length > 0; rest = rest.slice(BLOCK_LINES)) {
      this.#blocks.push({ id: rest[0]?.number ?? 0, lines: rest.slice(0, BLOCK_LINES) })
    }
    this.#blocks = this.#blocks.slice(-MAX_BLOCKS)
  }
}

/** A carriage return takes a terminal back to the line's beginning: only what was written last is seen. */
function lastOverwrite(raw: string): string {
  const line = raw.endsWith('\r') ? raw.slice(0, -1) : raw
  return line.slice(line.lastIndexOf('\r') + 1)
}
