/**
 * Terminal colours in a log line.
 *
 * Knows SGR's sixteen colours and bold; everything else that is an escape sequence is left out, because a log is not a
 * terminal: it does not move a cursor. Colours of the 256 and RGB kinds are read over, not shown.
 */

export interface Style {
  colour: number | null
  bold: boolean
}

export interface Piece {
  text: string
  style: Style
}

export const PLAIN: Style = { colour: null, bold: false }

// CSI, then OSC (ended by BEL or ST), then two-byte escapes, then control characters that are no tab.
// eslint-disable-next-line no-control-regex
const ESCAPE =
  /\x1b\[([0-9;:?<=>]*)[ -/]*([@-~])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]?|[\x00-\x08\x0b-\x1f\x7f]/g

/** The pieces of `line`, which begins in `style`, and the style that it ends in. */
export function parseLine(line: string, style: Style): { pieces: Piece[]; style: Style } {
  const pieces: Piece[] = []
  let from = 0
  const take = (to: number) => {
    if (to > from) pieces.push({ text: line.slice(from, to), style })
  }
  for (const found of line.matchAll(ESCAPE)) {
    take(found.index)
    from = found.index + found[0].length
    if (found[2] === 'm') style = restyle(style, found[1] ?? '')
  }
  take(line.length)
  return { pieces, style }
}

function restyle(style: Style, parameters: string): Style {
  const codes = parameters.split(/[;:]/).map(Number)
  let next = style
  for (let i = 0; i < codes.length; i++) {
    const code = codes[i] ?? 0
    if (code === 0) next = PLAIN
    else if (code === 1) next = { ...next, bold: true }
    else if (code === 22) next = { ...next, bold: false }
    else if (code >= 30 && code <= 37) next = { ...next, colour: code - 30 }
    else if (code >= 90 && code <= 97) next = { ...next, colour: code - 90 + 8 }
    else if (code === 39) next = { ...next, colour: null }
    else if (code === 38 || code === 48) i += codes[i + 1] === 5 ? 2 : 4
  }
  return next
}
