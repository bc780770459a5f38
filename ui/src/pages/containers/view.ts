/** The container list's rows, from what the engine told: pure, so that every rule here has a test. */
import type { ContainerState, ContainerSummary } from '../../host'
import { portLabels, type PortLabel } from '../../kit/ports'
import type { Tone } from '../../kit/tone'

/** What was asked of a container and is not answered yet. */
export type Pending = 'starting' | 'stopping' | 'removing'

/** The engine's states, and the ones that only this window knows. */
export type ShownState = ContainerState | Pending

export interface ContainerRow {
  id: string
  shortId: string
  name: string
  image: string
  /** The same in two: where it is from, which may be cut short, and what it is. */
  imageParts: [from: string, what: string]
  command: string
  state: ShownState
  tone: Tone
  /** The engine's own words: "Up (healthy)". */
  status: string
  ports: PortLabel[]
  /** Milliseconds since 1970. */
  createdAt: number
  canStart: boolean
  canStop: boolean
  canRemove: boolean
  /** Removing it ends a process, so the user is asked. */
  runs: boolean
}

export type SortKey = 'state' | 'name' | 'image' | 'created'

export interface Order {
  by: SortKey
  descending: boolean
}

export interface Wanted {
  filter: string
  onlyRunning: boolean
  order: Order
}

const tones: Record<ShownState, Tone> = {
  created: 'stopped',
  running: 'running',
  paused: 'paused',
  restarting: 'starting',
  removing: 'starting',
  exited: 'stopped',
  dead: 'failed',
  starting: 'starting',
  stopping: 'starting',
}

/** Those with a process of their own. */
const LIVE: readonly ContainerState[] = ['running', 'paused', 'restarting']

export function containerRow(container: ContainerSummary, pending: Pending | undefined): ContainerRow {
  const state = pending ?? container.state
  const image = shortImage(container.image)
  const runs = LIVE.includes(container.state)
  const free = pending === undefined && container.state !== 'removing'
  return {
    id: container.id,
    shortId: container.id.slice(0, 12),
    name: container.name,
    image,
    imageParts: [image.slice(0, image.lastIndexOf('/') + 1), image.slice(image.lastIndexOf('/') + 1)],
    command: container.command,
    state,
    tone: tones[state],
    status: container.status,
    ports: portLabels(container.ports),
    createdAt: container.created * 1_000,
    canStart: free && !runs && container.state !== 'dead',
    canStop: free && runs,
    canRemove: free,
    runs,
  }
}

/** An image that has lost its name is its digest, of which twelve digits are plenty. */
function shortImage(image: string): string {
  const digest = /^sha256:([0-9a-f]{12})[0-9a-f]*$/.exec(image)
  return digest?.[1] ?? image
}

export function containerRows(
  list: readonly ContainerSummary[],
  pending: ReadonlyMap<string, Pending>,
  wanted: Wanted,
): ContainerRow[] {
  const rows = list
    .map((container) => containerRow(container, pending.get(container.id)))
    .filter((row) => (!wanted.onlyRunning || row.runs) && matches(row, wanted.filter))
  const direction = wanted.order.descending ? -1 : 1
  return rows.sort((a, b) => direction * compare(a, b, wanted.order.by) || byName(a, b))
}

/** Every word must be somewhere in the row. */
export function matches(row: ContainerRow, filter: string): boolean {
  const text = [row.name, row.image, row.id, ...row.ports.map((port) => port.text)].join(' ').toLowerCase()
  return filter
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word))
}

function compare(a: ContainerRow, b: ContainerRow, by: SortKey): number {
  switch (by) {
    case 'state':
      return rank(a) - rank(b)
    case 'name':
      return byName(a, b)
    case 'image':
      return a.image.localeCompare(b.image)
    case 'created':
      return a.createdAt - b.createdAt
  }
}

const RANKS: readonly Tone[] = ['failed', 'starting', 'running', 'paused', 'stopped']

function rank(row: ContainerRow): number {
  return RANKS.indexOf(row.tone)
}

function byName(a: ContainerRow, b: ContainerRow): number {
  return a.name.localeCompare(b.name, undefined, { numeric: true })
}

/** A click on a column: the other way round if it is the one already, else its own natural way. */
export function reorder(order: Order, by: SortKey): Order {
  if (order.by === by) return { by, descending: !order.descending }
  return { by, descending: by === 'created' }
}

/** Which row a key leads to; `null` if it leads nowhere. */
export function rowAfterKey(
  key: string,
  rows: readonly ContainerRow[],
  selected: string | null,
): string | null {
  const last = rows.length - 1
  const at = rows.findIndex((row) => row.id === selected)
  const to: Record<string, number> = {
    ArrowDown: Math.min(at + 1, last),
    ArrowUp: at < 0 ? last : Math.max(at - 1, 0),
    PageDown: Math.min(at + 10, last),
    PageUp: Math.max(at - 10, 0),
    Home: 0,
    End: last,
  }
  const target = to[key]
  return target === undefined ? null : (rows[target]?.id ?? null)
}
