/** Finding in a log. */
import type { Piece } from './ansi'
import type { Block, LogLine } from './buffer'

export interface MarkedPiece extends Piece {
  marked: boolean
}

/** Whether the text is found, without regard to case. */
export function hasMatch(line: LogLine, needle: string): boolean {
  return needle !== '' && line.text.toLowerCase().includes(needle.toLowerCase())
}

/** The numbers of the lines that have a match, in order. */
export function matchingLines(blocks: readonly Block[], needle: string): number[] {
  if (needle === '') return []
  return blocks.flatMap((block) =>
    block.lines.filter((line) => hasMatch(line, needle)).map((line) => line.number),
  )
}

/** The line's pieces, cut where a match begins or ends. */
export function markMatches(line: LogLine, needle: string): MarkedPiece[] {
  const marks = matchRanges(line.text, needle)
  const cuts = marks.flat()
  const result: MarkedPiece[] = []
  let at = 0
  for (const piece of line.pieces) {
    const end = at + piece.text.length
    let from = at
    for (const to of [...cuts.filter((cut) => cut > at && cut < end), end]) {
      const marked = marks.some(([begin, finish]) => from >= begin && to <= finish)
      result.push({ text: piece.text.slice(from - at, to - at), style: piece.style, marked })
      from = to
    }
    at = end
  }
  return result
}

function matchRanges(text: string, needle: string): [number, number][] {
  const ranges: [number, number][] = []
  if (needle === '') return ranges
  const hay = text.toLowerCase()
  const sought = needle.toLowerCase()
  for (let at = hay.indexOf(sought); at >= 0; at = hay.indexOf(sought, at + sought.length)) {
    ranges.push([at, at + sought.length])
  }
  return ranges
}

/** The match after or before the present one; round at the ends. */
export function nextMatch(matches: readonly number[], present: number | null, step: 1 | -1): number | null {
  if (matches.length === 0) return null
  const at = present === null ? -1 : matches.indexOf(present)
  if (at < 0) return (step === 1 ? matches[0] : matches.at(-1)) ?? null
  return matches[(at + step + matches.length) % matches.length] ?? null
}
